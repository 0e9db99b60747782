"""What waits together is done together: for writes that share a transaction, and reads a trip."""

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
"""Questions in one trip. More would save little, and the first would wait for the last."""


class Waiting(Protocol):
    """Somebody in a line.

    Attributes:
        since: when they came, by the loop's clock.
        outcome: what they wait for.
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
    """Those who wait longest; without whom has gone, and who has waited for too long.

    Args:
        line: those who wait; whoever is taken leaves it.
        most: how many.
        patience: seconds; who has waited longer is told so.
        reason: what that counts as.
        size_of: tells how much work one of them is.
        max_size: of all that are taken, unless it is one alone.
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
    """Asks questions; those that wait for a connection together are asked in one trip.

    Args:
        ask: gets a connection, and answers the questions that it is then given by calling its
            argument; in their order. It may call it again, to answer the same once more.
        trips: that are under way at a time.
        patience: seconds that a question may wait for its trip to begin.
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
        # The loop itself keeps none of them.
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q, begin: Callable[[], None]) -> R:
        """The answer to one question.

        Args:
            question: what to ask.
            begin: is called at the moment from which on the answer includes what is committed.

        Raises:
            DatabaseBusy: it waited for too long.
            CatalogError: why none of a trip's questions could be answered.
        """
        loop = asyncio.get_running_loop()
        asking = _Asking[Q, R](question, begin, loop.time(), loop.create_future())
        self._line.append(asking)
        if self._under_way < self._trips:
            self._under_way += 1
            # It serves many requests, so it has the context of none.
            task = loop.create_task(self._run(), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asking.outcome

    async def _run(self) -> None:
        try:
            while self._line:
                await self._travel()
        finally:
            # At once, and not when the task is done: who comes in between would wait for ever.
            self._under_way -= 1

    async def _travel(self) -> None:
        began = asyncio.get_running_loop().time()
        batch: list[_Asking[Q, R]] = []
        try:
            answers = await self._ask(partial(self._begin, batch))
        except Exception as error:  # noqa: BLE001 (it is told to those who wait)
            # Without a connection, it concerns all who have waited for it for as long.
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
