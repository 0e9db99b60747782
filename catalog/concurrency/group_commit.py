"""Writes that wait together share one transaction.

A commit costs a flush to disk and a turn at the change counter, however much it writes. One batch
runs at a time, and what arrives meanwhile is the next one; a write that comes alone is a batch of
one, and goes at once.

A commit also makes every page of the list stale. So while pages are read, several who write at once
let them stand for a moment: that is what readers gain from, and the next batch is larger.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context, copy_context
from typing import Generic, NamedTuple, TypeVar

from catalog.concurrency.batch_loader import take_batch
from catalog.db.error_translation import did_not_answer
from catalog.errors import (
    CatalogError,
    DatabaseBusy,
    KeyInUse,
    Unavailable,
    copy_of,
)
from catalog.observability.metrics import WRITE_BATCH_SIZE, count_rejection

W = TypeVar("W")
R = TypeVar("R")

MAX_BATCH = 256
"""Writes in one transaction."""

MAX_BATCH_SIZE = 250_000
"""Characters in one transaction, unless it is a write alone: to write more of them down as SQL
would keep the event loop for more than some ten milliseconds."""

REST_SECONDS = 0.02
"""From a batch of several to the next one, while pages are read."""

MAX_WAITING = 4096
"""Writes that may wait; more of them are refused at once."""


class _Waiting(NamedTuple, Generic[W, R]):
    write: W
    key: Hashable | None
    since: float
    outcome: asyncio.Future[R]
    context: Context


class GroupCommit(Generic[W, R]):
    """Puts writes into batches; one for each process and kind of write.

    Args:
        commit: does a batch in one transaction; tells of each write, in order, what came of it or
            why it was refused. It raises CatalogError when nothing was done.
        patience: seconds that a write may wait for its batch to begin.
        has_readers: whether many have read since the last batch.
        limit: seconds after which a write is told that there is no answer, waiting included; what
            is under way then is not broken off.
        size_of: tells how many characters a write has, roughly.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[W]], Awaitable[Sequence[R | CatalogError]]],
        patience: float,
        has_readers: Callable[[], bool] = lambda: False,
        limit: float = math.inf,
        size_of: Callable[[W], int] = lambda _: 0,
    ) -> None:
        self._commit = commit
        self._patience = patience
        self._limit = limit
        self._size_of = size_of
        self._has_readers = has_readers
        self._rest_until = 0.0
        self._waiting: deque[_Waiting[W, R]] = deque()
        self._keys: set[Hashable] = set()
        self._running: asyncio.Task[None] | None = None

    async def write(self, write: W, *, key: Hashable | None = None) -> R:
        """Do one write, with others if there are any.

        A caller who is cancelled before the batch begins takes the write along.

        Args:
            write: what to do.
            key: what no two writes at a time may share.

        Raises:
            KeyInUse: a write with the same key is under way.
            DatabaseBusy: too many are waiting, or it waited for too long.
            CatalogError: why it was refused.
        """
        if len(self._waiting) >= MAX_WAITING:
            count_rejection("creates")
            raise DatabaseBusy("Too many writes are waiting.")
        if key is not None and key in self._keys:
            raise KeyInUse
        loop = asyncio.get_running_loop()
        waiting = _Waiting[W, R](write, key, loop.time(), loop.create_future(), copy_context())
        self._waiting.append(waiting)
        if key is not None:
            self._keys.add(key)
            waiting.outcome.add_done_callback(lambda _: self._keys.discard(key))
        if self._running is None:
            # It serves many requests, so it has the context of none.
            self._running = loop.create_task(self._run(), context=Context())
        return await waiting.outcome

    async def close(self) -> None:
        """Let the batches that wait finish."""
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        try:
            while batch := await self._next_batch():
                WRITE_BATCH_SIZE.observe(len(batch))
                loop = asyncio.get_running_loop()
                # The first has waited for the longest.
                timer = (
                    loop.call_at(batch[0].since + self._limit, _give_up, batch)
                    if self._limit < math.inf
                    else None
                )
                try:
                    if len(batch) > 1:
                        await self._do(batch)
                        self._rest_until = loop.time() + REST_SECONDS
                    else:
                        # What is logged, and traced, of one alone is its own.
                        await loop.create_task(self._do(batch), context=batch[0].context)
                finally:
                    if timer is not None:
                        timer.cancel()
        finally:
            self._running = None

    async def _next_batch(self) -> list[_Waiting[W, R]]:
        rest = self._rest_until - asyncio.get_running_loop().time()
        if rest > 0 and self._waiting and self._has_readers():
            await asyncio.sleep(rest)
        return take_batch(
            self._waiting,
            MAX_BATCH,
            patience=self._patience,
            reason="creates",
            size_of=lambda waiting: self._size_of(waiting.write),
            max_size=MAX_BATCH_SIZE,
        )

    async def _do(self, batch: list[_Waiting[W, R]], *, alone: bool = False) -> None:
        try:
            outcomes = await self._commit([waiting.write for waiting in batch])
        except Unavailable as error:
            # It may have been committed: to do it again could do it twice.
            for waiting in batch:
                _settle(waiting, copy_of(error))
        except Exception as error:  # noqa: BLE001 (it is told to those who wait)
            if alone:
                _settle(batch[0], error)
                return
            # Nothing was done, because of one of them; let it hurt only itself. One that came
            # alone gets a second try too: what another process did at the same time is seen now.
            for waiting in batch:
                if not _is_given_up(waiting):
                    await self._do([waiting], alone=True)
        else:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                _settle(waiting, outcome)


def _give_up(batch: Sequence[_Waiting[W, R]]) -> None:
    """Tell those who still wait that their time is over; their writes may be done all the same."""
    for waiting in batch:
        _settle(waiting, did_not_answer())


def _is_given_up(waiting: _Waiting[W, R]) -> bool:
    return waiting.outcome.done() and not waiting.outcome.cancelled()


def _settle(waiting: _Waiting[W, R], outcome: R | Exception) -> None:
    if waiting.outcome.done():
        # The caller has gone; what was done stays done.
        return
    if isinstance(outcome, Exception):
        waiting.outcome.set_exception(outcome)
    else:
        waiting.outcome.set_result(outcome)
