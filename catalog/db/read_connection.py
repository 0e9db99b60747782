"""Read connection: a lost connection costs a repeated statement, not a failed read."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import CursorResult
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.error_translation import is_lost

T = TypeVar("T")


class ReadConnection(AsyncConnection):
    """Read-only connection that repeats a statement once if the connection was lost.

    Most losses of idle connections are found at checkout (``engines/pool.py``); this is for those
    that only a statement reveals. Repeating it is safe, because the connection reads only and
    commits automatically: there is no transaction whose earlier statements would be lost with it.
    The repeated statement sees the latest commit, as the first one would have.

    Only ``execute``, ``scalar``, ``scalars`` and ``once_more_if_lost`` do so.
    """

    __slots__ = ()

    async def start(self, is_ctxmanager: bool = False) -> AsyncConnection:
        """Check out a connection, and try once more if a new one could not be opened."""
        return await self.once_more_if_lost(partial(super().start, is_ctxmanager))

    async def execute(
        self, statement: Any, parameters: Any = None, *, execution_options: Any = None
    ) -> CursorResult[Any]:
        """Execute a statement, on a new connection if this one was lost."""
        return await self.once_more_if_lost(
            partial(super().execute, statement, parameters, execution_options=execution_options)
        )

    async def once_more_if_lost(self, run: Callable[[], Awaitable[T]]) -> T:
        """Await ``run()``, and once more on a new connection if this one was lost meanwhile.

        Raises:
            SQLAlchemyError: the second run failed, or the first one for another reason.
        """
        try:
            return await run()
        except SQLAlchemyError as error:
            if not is_lost(error):
                raise
        if self.sync_connection is not None:
            # The loss has invalidated the pool's other connections, so the next one is new.
            # SQLAlchemy checks it out with the next statement, once this is rolled back.
            await self.rollback()
        return await run()
