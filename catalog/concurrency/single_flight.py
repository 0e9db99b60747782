"""Single-flight: concurrent reads of one thing share one load."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from catalog.concurrency.waiters import copy_of, settle

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Single-flight for one key: callers that arrive during a load share the next one.

    Args:
        read: loads the value. It calls its argument just before it starts to read; callers that
            arrive after that do not share this load, which may miss what is committed since.
        when_idle: called when no caller waits any more.
        limit: seconds after which a caller gets an error, whichever load it waits for: the one in
            progress may take its whole time before the next one begins.
        timed_out: makes that error.
    """

    def __init__(
        self,
        read: Callable[[Callable[[], None]], Awaitable[T]],
        when_idle: Callable[[], None] = lambda: None,
        limit: float = math.inf,
        timed_out: Callable[[], Exception] = TimeoutError,
    ) -> None:
        self._read = read
        self._when_idle = when_idle
        self._limit = limit
        self._timed_out = timed_out
        # Each future with its deadline. One timer serves all of them.
        self._waiting: list[tuple[float, asyncio.Future[T]]] = []
        self._sharing: list[tuple[float, asyncio.Future[T]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether callers wait for the next load to begin."""
        return bool(self._waiting)

    async def read(self, *, since: float | None = None) -> T:
        """Return the value as it was at some moment after this call.

        Args:
            since: start of the limit, by the loop's clock; now if not given.

        Raises:
            Exception: what ``timed_out`` makes, after the limit; or a copy of the error with which
                the shared load failed.
        """
        loop = asyncio.get_running_loop()
        # One future per caller, so that a cancelled caller does not cancel the others.
        future: asyncio.Future[T] = loop.create_future()
        until = (loop.time() if since is None else since) + self._limit
        self._waiting.append((until, future))
        if self._timer is None and until < math.inf:
            self._timer = loop.call_at(until, self._give_up)
        if self._task is None:
            # Runs in an empty context: the work is shared by many requests.
            self._task = loop.create_task(self._run(), context=Context())
        return await future

    def _give_up(self) -> None:
        """Fail the callers whose deadline has passed, and set the timer for the next one."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now, following = loop.time(), math.inf
        for until, future in (*self._sharing, *self._waiting):
            if future.done():
                continue
            if until <= now:
                future.set_exception(self._timed_out())
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
                except Exception as error:  # noqa: BLE001 (it is passed on to the waiters)
                    begin()
                    for _, future in sharing:
                        settle(future, copy_of(error))
                else:
                    for _, future in sharing:
                        settle(future, result)
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
