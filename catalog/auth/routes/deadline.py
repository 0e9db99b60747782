"""One deadline for all database work of a request about accounts."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from catalog.db.deadlines import shared_deadline
from catalog.http.context import app_state
from catalog.http.request import current_request

P = ParamSpec("P")
T = TypeVar("T")


def one_deadline(view: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Put all reads and writes of a view under one deadline, as for a single unit of work."""

    @wraps(view)
    async def bounded(*args: P.args, **kwargs: P.kwargs) -> T:
        state = app_state()
        if state.settings.embedded:
            # A file does not stall, and waiting for its lock has a shorter time-out of its own.
            return await view(*args, **kwargs)
        is_read = current_request().method in {"GET", "HEAD"}
        deadlines = state.database.deadlines
        with shared_deadline(deadlines.read if is_read else deadlines.write):
            return await view(*args, **kwargs)

    return bounded
