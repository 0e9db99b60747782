"""HTTP routes: signing in and out, the caller's account, all accounts."""

from catalog.auth.routes import account, sign_in, users
from catalog.auth.routes.deadline import bound_database_time

blueprints = (sign_in.blueprint, account.blueprint, users.blueprint)

for _blueprint in blueprints:
    _blueprint.before_request(bound_database_time)
