"""Periodic background tasks."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol


class Observer(Protocol):
    """Observer of the outcomes of a task's runs."""

    def failed(self, error: Exception) -> None:
        """Note a run that failed."""

    def succeeded(self) -> None:
        """Note a run that did not."""


class BackgroundTask:
    """Periodic task that runs until it is stopped; a failed run does not end it.

    Args:
        work: coroutine function to run.
        observer: receives the outcome of each run.
        interval_seconds: time between the end of one run and the start of the next.
        jitter: largest random extension of the interval, as a fraction of it, so that processes
            started together do not all run it at the same time.
        at_once: whether ``start`` runs it once and waits for that run, before the app serves.
    """

    def __init__(
        self,
        work: Callable[[], Awaitable[object]],
        observer: Observer,
        *,
        interval_seconds: float,
        jitter: float = 0,
        at_once: bool = False,
    ) -> None:
        self._work = work
        self._observer = observer
        self._interval_seconds = interval_seconds
        self._jitter = jitter
        self._at_once = at_once
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start the task, after a first run if ``at_once``."""
        if self._at_once:
            await self._attempt()
        self._task = asyncio.create_task(self._repeat())

    async def stop(self) -> None:
        """Cancel the task, even in the middle of a run; idempotent."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _repeat(self) -> None:
        # Work may turn its cancellation into an error, which ``_attempt`` would swallow.
        while not self._stopping:
            await asyncio.sleep(self._interval_seconds * (1 + self._jitter * random.random()))  # noqa: S311 (not a secret)
            await self._attempt()

    async def _attempt(self) -> None:
        try:
            await self._work()
        except Exception as error:  # noqa: BLE001 (a bug must not end the task)
            self._observer.failed(error)
        else:
            self._observer.succeeded()
