"""Batch loader: concurrent reads share one round trip. Its queue also serves group commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from catalog.errors import DatabaseBusy, copy_of
from catalog.observability.metrics import Shed, count_rejection

Q = TypeVar("Q")
R = TypeVar("R")

MAX_TOGETHER = 16
"""Questions in one round trip. More would save little, and the first would wait for the last."""


class Waiting(Protocol):
    """Waiter in a queue.

    Attributes:
        since: time of arrival, by the loop's clock.
        outcome: future that the waiter awaits.
    """

    @property
    def since(self) -> float: ...
    @property
    def outcome(self) -> asyncio.Future[Any]: ...


W = TypeVar("W", bound=Waiting)


def take_batch(
    line: deque[W],
    most: int,
    *,
    patience: float,
    reason: Shed,
    size_of: Callable[[W], int] = lambda _: 0,
    max_size: int = 0,
) -> list[W]:
    """Pop the oldest live waiters from a queue.

    Cancelled waiters are dropped, and those that have waited too long get ``DatabaseBusy``.

    Args:
        line: queue of waiters, oldest first.
        most: largest number of waiters in the batch.
        patience: seconds after which a waiter has waited too long.
        reason: label under which such waiters are counted.
        size_of: returns a waiter's size.
        max_size: largest total size of the batch; a single waiter may exceed it.
    """
    size = 0
    began_after = asyncio.get_running_loop().time() - patience
    batch: list[W] = []
    while line and len(batch) < most:
        size += size_of(line[0])
        if batch and size > max_size:
            break
        waiting = line.popleft()
        if waiting.outcome.done():
            continue
        if waiting.since < began_after:
            count_rejection(reason)
            waiting.outcome.set_exception(DatabaseBusy("What came before took too long."))
        else:
            batch.append(waiting)
    return batch


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
    """

    def __init__(
        self,
        ask: Callable[[Callable[[], Sequence[Q]]], Awaitable[Sequence[R]]],
        *,
        trips: int,
        patience: float,
    ) -> None:
        self._ask = ask
        self._trips = trips
        self._patience = patience
        self._line: deque[_Asking[Q, R]] = deque()
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
            DatabaseBusy: the question waited too long for its round trip.
            CatalogError: the round trip failed.
        """
        loop = asyncio.get_running_loop()
        asking = _Asking[Q, R](question, begin, loop.time(), loop.create_future())
        self._line.append(asking)
        if self._under_way < self._trips:
            self._under_way += 1
            # Runs in an empty context: the work is shared by many requests.
            task = loop.create_task(self._run(), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asking.outcome

    async def _run(self) -> None:
        try:
            while self._line:
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
                if not asking.outcome.done():
                    asking.outcome.set_exception(copy_of(error))
        else:
            for asking, answer in zip(batch, answers, strict=True):
                if not asking.outcome.done():
                    asking.outcome.set_result(answer)

    def _begin(self, batch: list[_Asking[Q, R]]) -> list[Q]:
        if not batch:
            batch += take_batch(self._line, MAX_TOGETHER, patience=self._patience, reason="pages")
        for asking in batch:
            asking.begin()
        return [asking.question for asking in batch]

    def _since(self, began: float) -> list[_Asking[Q, R]]:
        waited: list[_Asking[Q, R]] = []
        while self._line and self._line[0].since <= began:
            waited.append(self._line.popleft())
        return waited
