"""Batch loader: loads that wait for a connection share one read, and equal ones a place in it.

A caller joins only a read that begins after its call, so that its value includes everything that
was committed before. The usual single-flight, in which a caller joins a read in progress, is stale.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from typing import Generic, TypeVar

from catalog.concurrency.turns import Turn
from catalog.concurrency.waiters import Expired, copy_of, settle

K = TypeVar("K", bound=Hashable)
Q = TypeVar("Q")
C = TypeVar("C")
A = TypeVar("A")
R = TypeVar("R")

MAX_BATCH = 16
"""Loads in one read. More would save little, and the first would wait for the last."""

RESOLUTION_SECONDS = 0.01
"""Shortest interval of checks for callers whose deadline has passed; each passes all callers."""


class _Load(Generic[K, Q, R]):
    """Load of one key.

    Attributes:
        key: the key.
        question: what to read.
        since: when it began to wait for a connection.
        waiting: futures of the callers that wait for the next read of it to begin, each with the
            time at which it gets an error.
        sharing: the same of the callers that share the read in progress.
    """

    __slots__ = ("key", "question", "sharing", "since", "waiting")

    def __init__(self, key: K, question: Q, since: float) -> None:
        self.key = key
        self.question = question
        self.since = since
        self.waiting: list[tuple[float, asyncio.Future[R]]] = []
        self.sharing: list[tuple[float, asyncio.Future[R]]] = []

    @property
    def has_waiters(self) -> bool:
        """Whether callers wait for the next read."""
        return any(not outcome.done() for _, outcome in self.waiting)

    def begin_read(self) -> None:
        """Let the waiting callers share the read that begins now."""
        self.sharing, self.waiting = self.waiting, []

    def settle(self, outcome: R | Exception) -> None:
        """Give the sharing callers the value, or a copy of the error each."""
        sharing, self.sharing = self.sharing, []
        for _, future in sharing:
            settle(future, copy_of(outcome) if isinstance(outcome, Exception) else outcome)


class BatchLoader(Generic[K, Q, C, A, R]):
    """Loader of values by key, which reads up to ``max_batch`` of them at once.

    Args:
        connect: acquires a connection, for which loads wait.
        read: reads the answers to questions, in their order.
        convert: makes the value of a question's answer, once for all callers that share it and
            after the connection is released.
        max_concurrent_reads: bound on concurrent reads. At most one of them is of the same key.
        max_batch: largest number of loads in one read.
        wait_seconds: longest wait of a load for its read to begin.
        expired: makes the error of a load that has waited longer.
        deadline_seconds: time after which a caller gets an error, whichever read it waits for: the
            one in progress may take its whole time before the next one begins. The error may come
            late by ``RESOLUTION_SECONDS``.
        timed_out: makes that error.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[C]],
        read: Callable[[C, Sequence[Q]], Awaitable[Sequence[A]]],
        convert: Callable[[Q, A], R],
        *,
        max_concurrent_reads: int,
        max_batch: int = MAX_BATCH,
        wait_seconds: float = math.inf,
        expired: Expired = TimeoutError,
        deadline_seconds: float = math.inf,
        timed_out: Expired = TimeoutError,
    ) -> None:
        self._connect = connect
        self._read = read
        self._convert = convert
        self._max_concurrent_reads = max_concurrent_reads
        self._max_batch = max_batch
        self._wait_seconds = wait_seconds
        self._expired = expired
        self._deadline_seconds = deadline_seconds
        self._timed_out = timed_out
        self._loads: dict[K, _Load[K, Q, R]] = {}
        self._queue: deque[_Load[K, Q, R]] = deque()
        self._running = 0
        # The event loop holds only weak references to tasks.
        self._tasks: set[asyncio.Task[None]] = set()
        # One timer serves all callers; it is left running when there are none.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def __len__(self) -> int:
        """Return the number of keys that are being loaded."""
        return len(self._loads)

    def __contains__(self, key: K) -> bool:
        """Tell whether a key is being loaded."""
        return key in self._loads

    def is_awaited(self, key: K) -> bool:
        """Tell whether callers wait for the next read of a key, which a new one would join."""
        return key in self._loads and bool(self._loads[key].waiting)

    async def load(self, key: K, question: Q, *, since: float | None = None) -> R:
        """Return the value of a key as it was at some moment after this call.

        Args:
            key: the key.
            question: what to read; the same for the same key.
            since: start of the deadline, by the loop's clock; now if not given.

        Raises:
            Exception: what ``expired`` or ``timed_out`` makes; or a copy of the error with which
                the shared read failed.
        """
        event_loop = asyncio.get_running_loop()
        now = event_loop.time()
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = _Load(key, question, now)
            self._queue.append(load)
            if self._running < self._max_concurrent_reads:
                self._running += 1
                # Runs in an empty context: the work is shared by many requests.
                task = event_loop.create_task(self._run(), context=Context())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        # One future per caller, so that a cancelled caller does not cancel the others.
        until = (now if since is None else since) + self._deadline_seconds
        outcome: asyncio.Future[R] = event_loop.create_future()
        load.waiting.append((until, outcome))
        if until < self._timer_at:
            self._set_timer(until)
        return await outcome

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._read_batch()
        finally:
            # Decremented here and not in a done call-back: a load that arrives in between would
            # start no task and wait for ever.
            self._running -= 1

    async def _read_batch(self) -> None:
        """Acquire a connection, then read the loads that wait by then."""
        began = asyncio.get_running_loop().time()
        batch: list[_Load[K, Q, R]] = []
        try:
            async with self._connect() as connection:
                # Callers that arrive from here on wait for the next read: this one may miss what is
                # committed from now on.
                batch = self._begin_read()
                questions = [load.question for load in batch]
                answers = await self._read(connection, questions) if batch else []
        except Exception as error:  # noqa: BLE001 (it is passed on to the callers)
            # No batch means that no connection came: fail the loads that have waited for it as long
            # as this read.
            batch = batch or self._take_since(began)
            for load in batch:
                load.settle(error)
        else:
            if len(batch) > 1:
                await self._finish_all(batch, answers)
            elif batch:
                self._finish(batch[0], answers[0])
        finally:
            for load in batch:
                self._end_read(load)

    def _begin_read(self) -> list[_Load[K, Q, R]]:
        """Take the oldest loads that are still wanted from the queue; their read begins now."""
        began_after = asyncio.get_running_loop().time() - self._wait_seconds
        batch: list[_Load[K, Q, R]] = []
        while self._queue and len(batch) < self._max_batch:
            load = self._queue.popleft()
            if not load.has_waiters:
                del self._loads[load.key]
                continue
            load.begin_read()
            if load.since < began_after:
                load.settle(self._expired())
                self._end_read(load)
            else:
                batch.append(load)
        return batch

    def _take_since(self, began: float) -> list[_Load[K, Q, R]]:
        """Take the loads from the queue that have waited since ``began`` or longer."""
        taken: list[_Load[K, Q, R]] = []
        while self._queue and self._queue[0].since <= began:
            taken.append(self._queue.popleft())
            taken[-1].begin_read()
        return taken

    async def _finish_all(self, loads: Sequence[_Load[K, Q, R]], answers: Sequence[A]) -> None:
        """Finish loads in turns: long answers take milliseconds each to convert."""
        turn = Turn()
        for load, answer in zip(loads, answers, strict=True):
            self._finish(load, answer)
            await turn.yield_if_over()

    def _finish(self, load: _Load[K, Q, R], answer: A) -> None:
        try:
            load.settle(self._convert(load.question, answer))
        except Exception as error:  # noqa: BLE001 (it is passed on to the callers)
            load.settle(error)

    def _end_read(self, load: _Load[K, Q, R]) -> None:
        """End a load's read, and queue the load again if callers have arrived meanwhile."""
        for _, outcome in load.sharing:
            # They have no outcome, because the read was cancelled.
            outcome.cancel()
        load.sharing = []
        if load.has_waiters:
            load.since = asyncio.get_running_loop().time()
            self._queue.append(load)
        else:
            del self._loads[load.key]

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_at(when, self._give_up)

    def _give_up(self) -> None:
        """Fail the callers whose deadline has passed, and set the timer for the next one."""
        self._timer, self._timer_at = None, math.inf
        now, following = asyncio.get_running_loop().time(), math.inf
        for load in self._loads.values():
            for until, outcome in (*load.sharing, *load.waiting):
                if outcome.done():
                    continue
                if until <= now:
                    outcome.set_exception(self._timed_out())
                else:
                    following = min(following, until)
        if following < math.inf:
            self._set_timer(max(following, now + RESOLUTION_SECONDS))
