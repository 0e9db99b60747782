"""HTTP in and out: signing in and out, one's own account, everyone's accounts."""

from quart import request

from catalog.auth.routes import account, sign_in, users
from catalog.db.database import bound_together
from catalog.http.context import database

blueprints = (sign_in.blueprint, account.blueprint, users.blueprint)


async def _bound_database_time() -> None:
    """Let what a request reads and writes end in time together, as single statements do."""
    is_read = request.method in {"GET", "HEAD"}
    bound_together(database().read_limit if is_read else database().write_limit)


for _blueprint in blueprints:
    _blueprint.before_request(_bound_database_time)
