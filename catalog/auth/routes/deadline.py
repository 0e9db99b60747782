"""One deadline for all database work of a request about accounts."""

from quart import request

from catalog.db.database import bound_together
from catalog.http.context import running


async def bound_database_time() -> None:
    """Put all reads and writes of a request under one deadline, as for a single unit of work."""
    state = running()
    if state.settings.embedded:
        # A SQLite file does not stall, and waiting for its lock has a shorter time-out of its own.
        return
    is_read = request.method in {"GET", "HEAD"}
    bound_together(state.database.read_limit if is_read else state.database.write_limit)
