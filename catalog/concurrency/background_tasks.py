"""Work that is done again and again in the background while the service runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from catalog.errors import CatalogError
from catalog.observability.logs import logger

_log = logger(__name__)


class BackgroundTask:
    """Does work at an interval until it is stopped; a failure does not end it.

    Args:
        name: under which failures are logged.
        work: what to do.
        interval: seconds from the end of one time to the begin of the next.
        jitter: by how much of itself the interval may be longer, so that many processes that
            were started together do not all do it at once.
        at_once: whether the first time is before the service serves.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        *,
        interval: float,
        jitter: float = 0,
        at_once: bool = False,
    ) -> None:
        self._name = name
        self._work = work
        self._interval = interval
        self._jitter = jitter
        self._at_once = at_once
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        # What has gone wrong since it last went well.
        self._failures: set[type[Exception]] = set()

    async def start(self) -> None:
        """Go on with it in the background."""
        if self._at_once:
            await self._attempt()
        self._task = asyncio.create_task(self._repeat())

    async def stop(self) -> None:
        """End it, in the middle if need be; idempotent."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _repeat(self) -> None:
        # Work that takes being cancelled for a failure must not go on for that.
        while not self._stopping:
            await asyncio.sleep(self._interval * (1 + self._jitter * random.random()))  # noqa: S311 (not a secret)
            await self._attempt()

    async def _attempt(self) -> None:
        try:
            await self._work()
        except CatalogError as error:
            # One line for an outage, however long it is.
            if not self._failures:
                cause = error.__cause__
                _log.warning(
                    "task_degraded", task=self._name, code=error.slug, cause=repr(cause or error)
                )
            self._failures.add(type(error))
        except Exception as error:  # noqa: BLE001 (a bug must not end what others rely on)
            # A traceback twice a second would bury all else.
            if type(error) not in self._failures:
                _log.error("task_crashed", task=self._name, exc_info=error)
            self._failures.add(type(error))
        else:
            if self._failures:
                _log.info("task_recovered", task=self._name)
            self._failures.clear()


LAG_SECONDS = 0.05
"""How often the lag of the event loop is measured."""


class LoopLag:
    """Measures how much later than asked for the event loop calls back.

    That is what all clients of this process waited for work that was done in one piece. A timer
    and no task: it costs a few microseconds each time.

    Args:
        observe: is told each lag, in seconds.
        interval: seconds from one time to the next.
    """

    def __init__(self, observe: Callable[[float], None], *, interval: float = LAG_SECONDS) -> None:
        self._observe = observe
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Measure from now on."""
        self._wait()

    async def stop(self) -> None:
        """Stop to measure; idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._interval, self._measure, loop.time() + self._interval)

    def _measure(self, due: float) -> None:
        # Loops round to the resolution of their clock, and may be early by that.
        self._observe(max(0.0, asyncio.get_running_loop().time() - due))
        self._wait()
