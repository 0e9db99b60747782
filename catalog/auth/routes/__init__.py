"""HTTP in and out: signing in and out, one's own account, everyone's accounts."""

from catalog.auth.routes import account, sign_in, users

blueprints = (sign_in.blueprint, account.blueprint, users.blueprint)
