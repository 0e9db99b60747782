"""One deadline for all that a request about accounts does in the database."""

from quart import request

from catalog.db.database import bound_together
from catalog.http.context import running


async def bound_database_time() -> None:
    """Let what a request reads and writes end in time together, as a single unit of work does."""
    state = running()
    if state.settings.embedded:
        # A file does not freeze, and its lock is waited for by a shorter time of its own.
        return
    is_read = request.method in {"GET", "HEAD"}
    bound_together(state.database.read_limit if is_read else state.database.write_limit)
