"""Group commit: waiting writes share a transaction, and a bad one fails alone."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

import pytest

from catalog.concurrency.group_commit import GroupCommit, pop_batch
from tests.support import until

MAX_BATCH = 16
MAX_WAITING = 64
MAX_SIZE = 10

Commit = Callable[[Sequence[int]], Awaitable[Sequence[int | Exception]]]


class Full(Exception):
    """The queue is full."""


class Expired(Exception):
    """A write has waited too long for its batch."""


class TimedOut(Exception):
    """A write may or may not be committed after its deadline."""


class KeyInUse(Exception):
    """Another write has the key."""


class Lost(Exception):
    """A batch may or may not be committed."""


class Refused(Exception):
    """A write is refused."""


class Refusals:
    """A type of error for each refusal."""

    def full(self) -> Exception:
        return Full()

    def expired(self) -> Exception:
        return Expired()

    def timed_out(self) -> Exception:
        return TimedOut()

    def key_in_use(self) -> Exception:
        return KeyInUse()

    def forbids_retry(self, error: Exception) -> bool:
        return isinstance(error, Lost)


class Table:
    """Target of the batches: records them, refuses chosen writes, and can be blocked."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.rows: list[int] = []
        self.poison: dict[int, Exception] = {}
        self.refused: dict[int, Exception] = {}
        self.open = asyncio.Event()
        self.open.set()

    async def commit(self, writes: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(writes))
        await self.open.wait()
        for write in writes:
            if write in self.poison:
                raise self.poison[write]
        self.rows += [write for write in writes if write not in self.refused]
        return [self.refused.get(write, 10 * write) for write in writes]

    @asynccontextmanager
    async def held_up(self) -> AsyncIterator[None]:
        """Suspend commits until the context exits."""
        self.open.clear()
        yield
        self.open.set()


@pytest.fixture
async def table() -> Table:
    return Table()


@pytest.fixture
def commits(table: Table) -> GroupCommit[int, int]:
    return commits_to(table.commit)


def commits_to(commit: Commit, **options: Any) -> GroupCommit[int, int]:
    """Return a group commit with bounds that few tests reach, unless the options say otherwise."""
    defaults = {"max_batch": MAX_BATCH, "max_waiting": MAX_WAITING, "wait_seconds": 30}
    return GroupCommit(commit, Refusals(), **defaults | options)


async def started(commits: GroupCommit[int, int], writes: Sequence[int]) -> list[asyncio.Task[int]]:
    """Start the writes and return their tasks once they wait."""
    tasks = [asyncio.create_task(commits.write(write)) for write in writes]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


class TestBatches:
    async def test_lone_write_commits_at_once_in_a_batch_of_one(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        assert await commits.write(1) == 10
        assert await commits.write(2) == 20

        assert table.batches == [[1], [2]]

    async def test_writes_that_arrive_during_a_batch_form_the_next_one(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        async with table.held_up():
            first = await started(commits, [1])
            rest = await started(commits, range(2, 9))

        assert await asyncio.gather(*first, *rest) == [10 * write for write in range(1, 9)]
        assert table.batches == [[1], list(range(2, 9))]

    async def test_batch_size_is_bounded(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        async with table.held_up():
            tasks = await started(commits, range(2 * MAX_BATCH + 1))

        await asyncio.gather(*tasks)
        # All writes were queued before the first batch was formed.
        assert [len(batch) for batch in table.batches] == [MAX_BATCH, MAX_BATCH, 1]

    async def test_write_is_refused_at_once_when_the_queue_is_full(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        async with table.held_up():
            tasks = await started(commits, range(1))
            tasks += await started(commits, range(1, MAX_WAITING + 1))
            with pytest.raises(Full):
                await commits.write(-1)

        await asyncio.gather(*tasks)
        assert len(table.rows) == MAX_WAITING + 1

    async def test_write_that_waits_too_long_is_refused(self, table: Table) -> None:
        commits = commits_to(table.commit, wait_seconds=0)
        async with table.held_up():
            tasks = await started(commits, [1])
            tasks += await started(commits, [2])
            # The clock has to advance; there is no other event to wait for.
            await asyncio.sleep(0.001)

        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

        assert isinstance(outcomes[1], Expired)
        assert 2 not in table.rows

    async def test_close_drains_waiting_writes(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        tasks = await started(commits, [1, 2, 3])

        await commits.close()

        assert table.rows == [1, 2, 3]
        await asyncio.gather(*tasks)

    async def test_size_of_each_batch_is_reported(self, table: Table) -> None:
        sizes: list[int] = []
        commits = commits_to(table.commit, on_batch=sizes.append)
        async with table.held_up():
            tasks = [*await started(commits, [1]), *await started(commits, [2, 3])]

        await asyncio.gather(*tasks)

        assert sizes == [1, 2]

    async def test_batch_is_bounded_by_the_size_of_its_writes(self, table: Table) -> None:
        commits = commits_to(table.commit, size_of=lambda _: MAX_SIZE // 2, max_size=MAX_SIZE)
        async with table.held_up():
            tasks = [*await started(commits, [1]), *await started(commits, [2, 3, 4])]

        await asyncio.gather(*tasks)

        assert table.batches == [[1], [2, 3], [4]]


class TestReturns:
    @pytest.fixture(autouse=True)
    def long_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let only the duration of the last batch bound the wait."""
        monkeypatch.setattr("catalog.concurrency.group_commit.MAX_RETURN_SECONDS", 60)

    async def half_committed(self, table: Table, commits: GroupCommit[int, int]) -> None:
        """Commit a batch of two, which takes some time, while two more writes wait."""
        async with table.held_up():
            tasks = await started(commits, [1, 2])
            await started(commits, [3, 4])
            # The duration of the batch, which bounds the wait after it.
            await asyncio.sleep(1)
        await asyncio.gather(*tasks)

    @pytest.mark.parametrize("waits", [True, False])
    async def test_batch_waits_for_the_callers_of_the_last_one(
        self,
        waits: bool,
        table: Table,
        commits: GroupCommit[int, int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if not waits:
            monkeypatch.setattr(commits, "_note_end", lambda *_: None)
        await self.half_committed(table, commits)

        async with asyncio.timeout(30):
            await asyncio.gather(*await started(commits, [5, 6]))

        # Without the wait, each half of the callers waits for the other.
        assert table.batches == ([[1, 2], [3, 4, 5, 6]] if waits else [[1, 2], [3, 4], [5, 6]])

    async def test_callers_that_do_not_return_are_not_waited_for(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        await self.half_committed(table, commits)

        async with asyncio.timeout(30):
            await commits.close()

        assert table.batches == [[1, 2], [3, 4]]

    async def test_no_caller_is_waited_for_if_enough_writes_wait(self, table: Table) -> None:
        await self.half_committed(table, commits_to(table.commit, max_batch=2))

        assert table.batches == [[1, 2], [3, 4]]

    async def test_callers_of_a_batch_that_was_full_are_not_waited_for(self, table: Table) -> None:
        commits = commits_to(table.commit, size_of=lambda _: MAX_SIZE // 2, max_size=MAX_SIZE)
        async with table.held_up():
            tasks = await started(commits, [1, 2, 3])
            # The duration of the batch, which bounds the wait after it.
            await asyncio.sleep(1)
        await asyncio.gather(*tasks[:2])

        assert table.batches == [[1, 2], [3]]


class TestPauses:
    @pytest.mark.parametrize("should_pause", [True, False])
    async def test_batch_after_several_writes_is_delayed_only_if_it_should_pause(
        self, table: Table, should_pause: bool
    ) -> None:
        commits = commits_to(table.commit, pause_seconds=2, should_pause=lambda: should_pause)
        async with table.held_up():
            tasks = [*await started(commits, [1]), *await started(commits, [2, 3])]
        await asyncio.gather(*tasks)

        tasks = await started(commits, [4])
        # Long enough for the write to finish unless its batch is delayed.
        await asyncio.wait(tasks, timeout=0.2 if should_pause else 30)
        tasks += await started(commits, [5])
        await asyncio.gather(*tasks)

        assert table.batches == [[1], [2, 3], *([[4, 5]] if should_pause else [[4], [5]])]

    async def test_batches_are_not_delayed_by_default(
        self, table: Table, commits: GroupCommit[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.concurrency.group_commit.MAX_RETURN_SECONDS", 3600)

        async with asyncio.timeout(30):
            await asyncio.gather(*await started(commits, [1, 2]))
            await commits.write(3)

        assert table.batches == [[1, 2], [3]]

    async def test_lone_writer_is_not_delayed(self, table: Table) -> None:
        commits = commits_to(table.commit, pause_seconds=3600)

        async with asyncio.timeout(30):
            for write in range(3):
                await commits.write(write)

        assert table.batches == [[0], [1], [2]]


class TestContexts:
    async def test_lone_write_runs_in_its_callers_context_and_a_batch_in_an_empty_one(self) -> None:
        caller: ContextVar[str] = ContextVar("caller", default="nobody")
        seen: list[tuple[int, str]] = []
        gate = asyncio.Event()

        async def commit(writes: Sequence[int]) -> list[int | Exception]:
            seen.append((len(writes), caller.get()))
            await gate.wait()
            return list(writes)

        commits = commits_to(
            commit,
        )

        async def write(number: int) -> None:
            caller.set(f"caller {number}")
            await commits.write(number)

        first = asyncio.create_task(write(1))
        while not seen:
            await asyncio.sleep(0)
        others = [asyncio.create_task(write(number)) for number in (2, 3)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *others)
        await write(4)

        assert seen == [(1, "caller 1"), (2, "nobody"), (1, "caller 4")]


class TestFailures:
    async def test_refused_write_does_not_affect_the_rest_of_its_batch(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        table.refused[2] = Refused()
        tasks = await started(commits, [1, 2, 3])

        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

        assert outcomes == [10, table.refused[2], 30]
        assert len(table.batches) == 1

    async def test_write_that_breaks_its_batch_fails_alone(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        table.poison[2] = Refused()
        tasks = await started(commits, [1, 2, 3])

        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

        assert outcomes == [10, table.poison[2], 30]
        assert table.rows == [1, 3]

    async def test_lone_write_is_retried_once(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        table.poison[1] = Refused()
        async with table.held_up():
            (task,) = await started(commits, [1])
            await asyncio.sleep(0)

        with pytest.raises(Refused):
            await task

        assert table.batches == [[1], [1]]

    async def test_batch_that_may_have_committed_is_not_retried(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        table.poison[2] = Lost()
        tasks = await started(commits, [1, 2, 3])

        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [Lost] * 3
        assert table.batches == [[1, 2, 3]]

    async def test_writes_continue_after_a_bug(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        table.poison[1] = ZeroDivisionError()

        with pytest.raises(ZeroDivisionError):
            await commits.write(1)

        assert await commits.write(2) == 20


class TestCallers:
    async def test_cancellation_before_the_batch_begins_drops_the_write(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        async with table.held_up():
            first = await started(commits, [1])
            second, third = await started(commits, [2, 3])
            second.cancel()

        await asyncio.gather(*first, third)
        assert table.rows == [1, 3]

    async def test_cancellation_after_the_batch_began_does_not_stop_the_write(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        async with table.held_up():
            first, second = await started(commits, [1, 2])
            await until(lambda: table.batches)
            first.cancel()

        with suppress(asyncio.CancelledError):
            await first
        assert await second == 20
        assert table.rows == [1, 2]


class TestKeys:
    async def test_write_is_refused_while_its_key_is_in_use(
        self, table: Table, commits: GroupCommit[int, int]
    ) -> None:
        async with table.held_up():
            first = asyncio.create_task(commits.write(1, key="key"))
            await asyncio.sleep(0)
            with pytest.raises(KeyInUse):
                await commits.write(2, key="key")
            other = asyncio.create_task(commits.write(3, key="another"))

        assert (await first, await other) == (10, 30)
        assert await commits.write(4, key="key") == 40


class TestDeadlines:
    async def test_limit_applies_while_a_batch_hangs_and_its_writes_still_complete(self) -> None:
        gate = asyncio.Event()
        done: list[int] = []

        async def commit(writes: Sequence[int]) -> list[int | Exception]:
            await gate.wait()
            done.extend(writes)
            return list(writes)

        commits = commits_to(
            commit,
            deadline_seconds=0.05,
        )

        with pytest.raises(TimedOut):
            await commits.write(1)

        gate.set()
        await commits.close()
        assert done == [1]

    async def test_write_that_waits_behind_a_hanging_batch_is_dropped_at_its_limit(
        self, table: Table
    ) -> None:
        commits = commits_to(table.commit, deadline_seconds=0.05)

        async with table.held_up():
            [first] = await started(commits, [1])
            with pytest.raises(Expired):
                await commits.write(2)
            with pytest.raises(TimedOut):
                await first
        await commits.close()

        assert table.rows == [1]

    async def test_limit_counts_from_a_given_moment(self, table: Table) -> None:
        commits = commits_to(table.commit, deadline_seconds=30)
        now = asyncio.get_running_loop().time()

        async with table.held_up():
            with pytest.raises(TimedOut):
                await commits.write(1, since=now - 29.95)
        await commits.close()


class Caller(NamedTuple):
    """A waiter with a name and a size."""

    name: str
    since: float
    outcome: "asyncio.Future[str]"
    size: int = 1


def caller(name: str, *, waited: float = 0.0, size: int = 1) -> Caller:
    loop = asyncio.get_running_loop()
    return Caller(name, loop.time() - waited, loop.create_future(), size)


def popped(queue: deque[Caller], max_waiters: int = 10, **options: int) -> list[str]:
    batch = pop_batch(
        queue,
        max_waiters,
        wait_seconds=5,
        expired=TimeoutError,
        size_of=lambda each: each.size,
        max_size=options.get("max_size", 1000),
    )
    return [each.name for each in batch]


class TestPopBatch:
    async def test_oldest_come_first_and_the_rest_stays(self) -> None:
        queue = deque(map(caller, "abc"))

        assert popped(queue, max_waiters=2) == ["a", "b"]
        assert [each.name for each in queue] == ["c"]

    async def test_cancelled_waiter_is_dropped(self) -> None:
        queue = deque(map(caller, "ab"))
        queue[0].outcome.cancel()

        assert popped(queue) == ["b"]

    async def test_waiter_beyond_its_time_gets_an_error(self) -> None:
        late = caller("a", waited=6)
        queue = deque([late, caller("b")])

        assert popped(queue) == ["b"]
        assert isinstance(late.outcome.exception(), TimeoutError)

    async def test_batch_ends_before_its_size_is_exceeded_unless_it_is_empty(self) -> None:
        queue = deque([caller("a", size=9), caller("b", size=2), caller("c", size=2)])

        assert popped(queue, max_size=5) == ["a"]
        assert popped(queue, max_size=5) == ["b", "c"]

    async def test_batch_may_have_exactly_the_largest_size(self) -> None:
        queue = deque([caller("a", size=2), caller("b", size=3), caller("c", size=1)])

        assert popped(queue, max_size=5) == ["a", "b"]

    async def test_batch_has_no_largest_size_by_default(self) -> None:
        queue = deque(map(caller, "abc"))

        batch = pop_batch(queue, 10, wait_seconds=5, expired=TimeoutError)

        assert [each.name for each in batch] == ["a", "b", "c"]
