"""Group commit: concurrent writes share one transaction.

A commit costs a flush to disk, however much it writes. One batch runs at a time, and writes that
arrive meanwhile form the next one; a single write is a batch of one and starts at once.

A transaction costs as much for one write as for several. So after a batch of several the next one
waits until its callers have returned with their next writes, but no longer than that batch took:
otherwise one half of the callers would wait for the other in turns, in batches of half the size.

On request, a batch of several is followed by a pause, so that the next one is larger.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context, copy_context
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from catalog.concurrency.waiters import Expired, copy_of, settle

W = TypeVar("W")
R = TypeVar("R")

MAX_RETURN_SECONDS = 0.02
"""Longest wait for the callers of a batch to return."""


class Refusals(Protocol):
    """Makes the errors that a group commit gives its callers; each call may count one."""

    def full(self) -> Exception:
        """Return the error of a write that finds the queue full."""

    def expired(self) -> Exception:
        """Return the error of a write that has waited too long for its batch."""

    def timed_out(self) -> Exception:
        """Return the error of a write that may or may not be committed after its deadline."""

    def key_in_use(self) -> Exception:
        """Return the error of a write whose key another one has."""

    def forbids_retry(self, error: Exception) -> bool:
        """Tell whether the writes of a failed batch must not be repeated one by one.

        The batch may have been committed, or the database has no time for so many transactions.
        """


class _Waiting(NamedTuple, Generic[W, R]):
    write: W
    key: Hashable | None
    since: float
    outcome: asyncio.Future[R]
    context: Context


class GroupCommit(Generic[W, R]):
    """Queue that batches writes into transactions; one per process and kind of write.

    Args:
        commit: commits a batch in one transaction and returns, in order, each write's result or
            the error that rejected it. When it raises, the writes are repeated one by one, unless
            ``refusals.forbids_retry`` is true of the error.
        refusals: makes the errors for writes that are not committed.
        max_batch: largest number of writes in a batch.
        max_waiting: longest queue of writes; writes beyond it are rejected at once.
        wait_seconds: longest wait of a write for its batch to begin.
        deadline_seconds: deadline of a write, waiting included; its transaction is not cancelled.
        size_of: returns the size of a write.
        max_size: largest total size of a batch; a single write may exceed it.
        pause_seconds: time between a batch of several and the next one.
        should_pause: returns whether there is a pause, once it would begin.
        on_batch: called with the number of writes of each batch.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[W]], Awaitable[Sequence[R | Exception]]],
        refusals: Refusals,
        *,
        max_batch: int,
        max_waiting: int,
        wait_seconds: float,
        deadline_seconds: float = math.inf,
        size_of: Callable[[W], int] = lambda _: 0,
        max_size: float = math.inf,
        pause_seconds: float = 0.0,
        should_pause: Callable[[], bool] = lambda: True,
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._commit = commit
        self._refusals = refusals
        self._on_batch = on_batch
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._wait_seconds = wait_seconds
        self._deadline_seconds = deadline_seconds
        self._size_of = size_of
        self._max_size = max_size
        self._pause_seconds = pause_seconds
        self._should_pause = should_pause
        self._pause_until = self._return_until = 0.0
        # Writes that waited or were being committed at the end of the last batch of several.
        self._expected = 0
        # Whether the last batch left writes behind, so that waiting would not make it larger.
        self._was_full = False
        self._have_returned: asyncio.Future[None] | None = None
        self._waiting: deque[_Waiting[W, R]] = deque()
        self._keys: set[Hashable] = set()
        self._running: asyncio.Task[None] | None = None
        # The last batch that has begun.
        self._batch: Sequence[_Waiting[W, R]] = ()

    async def write(
        self, write: W, *, key: Hashable | None = None, since: float | None = None
    ) -> R:
        """Commit one write, batched with concurrent ones.

        If the caller is cancelled before the batch begins, the write is dropped.

        Args:
            write: the write.
            key: key that no two concurrent writes may share.
            since: start of its deadline, by the loop's clock; now if not given.

        Raises:
            Exception: one of ``refusals``, or the error that rejected the write.
        """
        if len(self._waiting) >= self._max_waiting:
            raise self._refusals.full()
        if key is not None and key in self._keys:
            raise self._refusals.key_in_use()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[R] = loop.create_future()
        # Without parameters of the type, which would take longer than the rest.
        now = loop.time()
        waiting = _Waiting(write, key, now, outcome, copy_context())
        self._waiting.append(waiting)
        if self._have_returned is not None and len(self._waiting) >= self._expected:
            self._settle_return()
        if key is not None:
            self._keys.add(key)
            waiting.outcome.add_done_callback(lambda _: self._keys.discard(key))
        if self._running is None:
            # Runs in an empty context: the work is shared by many requests.
            self._running = loop.create_task(self._run(), context=Context())
        timer = loop.call_at(
            (now if since is None else since) + self._deadline_seconds, self._give_up, waiting
        )
        try:
            return await outcome
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Wait until all queued writes are committed, and those that their callers queue again."""
        while self._running is not None:
            await self._running

    async def _run(self) -> None:
        try:
            while batch := await self._next_batch():
                self._on_batch(len(batch))
                self._batch = batch
                loop = asyncio.get_running_loop()
                if len(batch) > 1:
                    began = loop.time()
                    await self._do(batch)
                    self._note_end(len(batch), began, loop.time())
                else:
                    # A batch of one runs in its own context, for its logs and spans.
                    await loop.create_task(self._do(batch), context=batch[0].context)
        finally:
            self._batch = ()
            self._running = None

    async def _next_batch(self) -> list[_Waiting[W, R]]:
        now = asyncio.get_running_loop().time()
        if now < self._pause_until and self._waiting and self._should_pause():
            await asyncio.sleep(self._pause_until - now)
        elif now < self._return_until and 0 < len(self._waiting) < self._expected:
            await self._wait_for_return()
        batch = pop_batch(
            self._waiting,
            self._max_batch,
            wait_seconds=self._wait_seconds,
            expired=self._refusals.expired,
            size_of=lambda waiting: self._size_of(waiting.write),
            max_size=self._max_size,
        )
        self._was_full = bool(self._waiting)
        return batch

    def _note_end(self, size: int, began: float, now: float) -> None:
        """Record the end of a batch of several."""
        self._pause_until = now + self._pause_seconds
        self._return_until = now if self._was_full else now + min(MAX_RETURN_SECONDS, now - began)
        self._expected = min(self._max_batch, size + len(self._waiting))

    async def _wait_for_return(self) -> None:
        """Wait until as many writes wait as at the end of the last batch, or for its duration."""
        loop = asyncio.get_running_loop()
        self._have_returned = loop.create_future()
        timer = loop.call_at(self._return_until, self._settle_return)
        try:
            await self._have_returned
        finally:
            timer.cancel()
            self._have_returned = None

    def _settle_return(self) -> None:
        if self._have_returned is not None and not self._have_returned.done():
            self._have_returned.set_result(None)

    async def _do(self, batch: list[_Waiting[W, R]], *, alone: bool = False) -> None:
        try:
            outcomes = await self._commit([waiting.write for waiting in batch])
        except Exception as error:  # noqa: BLE001 (it is passed on to the waiters)
            if self._refusals.forbids_retry(error):
                for waiting in batch:
                    settle(waiting.outcome, copy_of(error))
                return
            if alone:
                settle(batch[0].outcome, error)
                return
            # Nothing was committed. Retry the batch one by one, so that one bad write fails alone.
            # A batch of one is retried too: it may have conflicted with another process, whose
            # commit is visible now.
            for waiting in batch:
                if not _is_given_up(waiting):
                    await self._do([waiting], alone=True)
        else:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                settle(waiting.outcome, outcome)

    def _give_up(self, waiting: _Waiting[W, R]) -> None:
        """Fail a write whose deadline has passed; if its batch runs, it may still be committed."""
        has_begun = any(each is waiting for each in self._batch)
        settle(
            waiting.outcome,
            self._refusals.timed_out() if has_begun else self._refusals.expired(),
        )


def _is_given_up(waiting: _Waiting[W, R]) -> bool:
    return waiting.outcome.done() and not waiting.outcome.cancelled()


class Waiter(Protocol):
    """Caller in a queue.

    Attributes:
        since: time of arrival, by the loop's clock.
        outcome: future that the caller awaits.
    """

    @property
    def since(self) -> float: ...
    @property
    def outcome(self) -> asyncio.Future[Any]: ...


Queued = TypeVar("Queued", bound=Waiter)


def pop_batch(
    queue: deque[Queued],
    max_waiters: int,
    *,
    wait_seconds: float,
    expired: Expired,
    size_of: Callable[[Queued], int] = lambda _: 0,
    max_size: float = math.inf,
) -> list[Queued]:
    """Pop the oldest live waiters from a queue.

    Cancelled waiters are dropped, and those that have waited too long get an error.

    Args:
        queue: waiters, oldest first.
        max_waiters: largest number of waiters in the batch.
        wait_seconds: longest wait.
        expired: makes the error for such a waiter.
        size_of: returns a waiter's size.
        max_size: largest total size of the batch; a single waiter may exceed it.
    """
    size = 0
    began_after = asyncio.get_running_loop().time() - wait_seconds
    batch: list[Queued] = []
    while queue and len(batch) < max_waiters:
        size += size_of(queue[0])
        if batch and size > max_size:
            break
        waiter = queue.popleft()
        if waiter.outcome.done():
            continue
        if waiter.since < began_after:
            waiter.outcome.set_exception(expired())
        else:
            batch.append(waiter)
    return batch
