"""Batch loader: concurrent reads share one round trip."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from catalog.concurrency.waiters import copy_of, pop_batch, settle

Q = TypeVar("Q")
R = TypeVar("R")

MAX_TOGETHER = 16
"""Questions in one round trip. More would save little, and the first would wait for the last."""


class _Asking(NamedTuple, Generic[Q, R]):
    question: Q
    begin: Callable[[], None]
    since: float
    outcome: asyncio.Future[R]


class BatchLoader(Generic[Q, R]):
    """Loader that batches questions waiting for a connection into one round trip.

    Args:
        ask: acquires a connection, calls its argument to get the batch, and returns the answers in
            the batch's order. A retry calls the argument again, which returns the same batch.
        trips: largest number of concurrent round trips.
        patience: seconds that a question may wait for its round trip to begin.
        expired: makes the error for a question that has waited longer.
    """

    def __init__(
        self,
        ask: Callable[[Callable[[], Sequence[Q]]], Awaitable[Sequence[R]]],
        *,
        trips: int,
        patience: float,
        expired: Callable[[], Exception] = TimeoutError,
    ) -> None:
        self._ask = ask
        self._trips = trips
        self._patience = patience
        self._expired = expired
        self._queue: deque[_Asking[Q, R]] = deque()
        self._under_way = 0
        # The event loop holds only weak references to tasks.
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q, begin: Callable[[], None]) -> R:
        """Return the answer to one question.

        Args:
            question: the question.
            begin: called just before the read starts; the answer includes everything that has been
                committed until then.

        Raises:
            Exception: what ``expired`` makes, if the question waited too long; or a copy of the
                error with which the round trip failed.
        """
        loop = asyncio.get_running_loop()
        asking = _Asking[Q, R](question, begin, loop.time(), loop.create_future())
        self._queue.append(asking)
        if self._under_way < self._trips:
            self._under_way += 1
            # Runs in an empty context: the work is shared by many requests.
            task = loop.create_task(self._run(), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asking.outcome

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._travel()
        finally:
            # Decremented here and not in a done call-back: a question that arrives in between
            # would start no task and wait for ever.
            self._under_way -= 1

    async def _travel(self) -> None:
        began = asyncio.get_running_loop().time()
        batch: list[_Asking[Q, R]] = []
        try:
            answers = await self._ask(partial(self._begin, batch))
        except Exception as error:  # noqa: BLE001 (it is passed on to the waiters)
            # No batch means that no connection came: fail all questions that have waited for it
            # as long as this round trip.
            for asking in batch or self._since(began):
                settle(asking.outcome, copy_of(error))
        else:
            for asking, answer in zip(batch, answers, strict=True):
                settle(asking.outcome, answer)

    def _begin(self, batch: list[_Asking[Q, R]]) -> list[Q]:
        if not batch:
            batch += pop_batch(
                self._queue, MAX_TOGETHER, patience=self._patience, expired=self._expired
            )
        for asking in batch:
            asking.begin()
        return [asking.question for asking in batch]

    def _since(self, began: float) -> list[_Asking[Q, R]]:
        waited: list[_Asking[Q, R]] = []
        while self._queue and self._queue[0].since <= began:
            waited.append(self._queue.popleft())
        return waited
