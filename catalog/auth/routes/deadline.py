"""One deadline for all that a request about accounts does in the database."""

from quart import request

from catalog.db.database import bound_together
from catalog.http.context import database


async def bound_database_time() -> None:
    """Let what a request reads and writes end in time together, as a single unit of work does."""
    is_read = request.method in {"GET", "HEAD"}
    bound_together(database().read_limit if is_read else database().write_limit)
