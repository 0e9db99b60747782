"""HTTP routes: signing in and out, the caller's account and API keys, all accounts."""

from catalog.auth.routes import account, keys, sign_in, users

blueprints = (sign_in.blueprint, account.blueprint, keys.blueprint, users.blueprint)
