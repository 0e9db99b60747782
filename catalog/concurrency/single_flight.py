"""Single-flight: concurrent reads of one thing share one load."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from catalog.db.error_translation import did_not_answer
from catalog.errors import copy_of

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Reads of one thing: who asks while one is under way shares the next one.

    Args:
        read: reads it. It calls what it is given at the moment from which on it sees everything
            that has been committed: who asks later is not to share this one.
        when_idle: is called when nobody waits any more.
        limit: seconds after which a caller gets DatabaseUnavailable, whichever read it
            waits for: the one under way may take its whole time before the next one begins.
    """

    def __init__(
        self,
        read: Callable[[Callable[[], None]], Awaitable[T]],
        when_idle: Callable[[], None] = lambda: None,
        limit: float = math.inf,
    ) -> None:
        self._read = read
        self._when_idle = when_idle
        self._limit = limit
        # With the time until which each waits. One timer serves all of them.
        self._waiting: list[tuple[float, asyncio.Future[T]]] = []
        self._sharing: list[tuple[float, asyncio.Future[T]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the next read to begin."""
        return bool(self._waiting)

    async def read(self, *, since: float | None = None) -> T:
        """What is there now, or was a moment after this was called.

        Args:
            since: from when on the limit counts, by the loop's clock; from now if not given.

        Raises:
            DatabaseUnavailable: there was no answer within the limit.
            CatalogError: what the read that was shared has raised.
        """
        loop = asyncio.get_running_loop()
        # One for each: who is cancelled takes nobody along.
        future: asyncio.Future[T] = loop.create_future()
        until = (loop.time() if since is None else since) + self._limit
        self._waiting.append((until, future))
        if self._timer is None and until < math.inf:
            self._timer = loop.call_at(until, self._give_up)
        if self._task is None:
            # It serves many requests, so it has the context of none.
            self._task = loop.create_task(self._run(), context=Context())
        return await future

    def _give_up(self) -> None:
        """Tell those whose time is over, and come back for the next of the others."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now, following = loop.time(), math.inf
        for until, future in (*self._sharing, *self._waiting):
            if future.done():
                continue
            if until <= now:
                future.set_exception(did_not_answer())
            else:
                following = min(following, until)
        if following < math.inf:
            self._timer = loop.call_at(following, self._give_up)

    async def _run(self) -> None:
        sharing = self._sharing

        def begin() -> None:
            sharing.extend(self._waiting)
            self._waiting.clear()

        try:
            while any(not future.done() for _, future in self._waiting):
                sharing.clear()
                try:
                    result = await self._read(begin)
                except Exception as error:  # noqa: BLE001 (it is told to those who wait)
                    begin()
                    for _, future in sharing:
                        if not future.done():
                            future.set_exception(copy_of(error))
                else:
                    for _, future in sharing:
                        if not future.done():
                            future.set_result(result)
        finally:
            self._task = None
            begin()
            for _, future in sharing:
                future.cancel()
            sharing.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._when_idle()
