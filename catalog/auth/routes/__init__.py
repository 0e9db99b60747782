"""HTTP routes: signing in and out, the caller's account, all accounts."""

from catalog.auth.routes import account, sign_in, users

blueprints = (sign_in.blueprint, account.blueprint, users.blueprint)
