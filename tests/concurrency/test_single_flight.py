"""Single-flight: concurrent reads share a load that sees every commit before they began."""

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest

from catalog.concurrency.single_flight import SingleFlight
from catalog.errors import DatabaseUnavailable, NotFound, Overloaded


class Source:
    """Number to read; the read can be blocked before and after it sees the value."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.connection = asyncio.Event()
        self.answer = asyncio.Event()
        self.connection.set()
        self.answer.set()
        self.failure: Exception | None = None

    async def read(self, begin: Callable[[], None]) -> int:
        await self.connection.wait()
        begin()
        self.reads += 1
        value = self.value
        await self.answer.wait()
        if self.failure is not None:
            raise self.failure
        return value


class Loaded:
    """Value that can be referenced weakly."""


class NaiveSingleFlight(SingleFlight[int]):
    """Negative control: the usual single-flight, where late callers join a stale read."""

    async def _run(self) -> None:
        result = await self._read(lambda: None)
        for _, future in self._waiting:
            future.set_result(result)
        self._waiting.clear()
        self._task = None


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class TestSingleFlight:
    async def test_concurrent_callers_share_one_read(self) -> None:
        source = Source()
        joined = SingleFlight(source.read)

        assert await asyncio.gather(*(joined.read() for _ in range(50))) == [0] * 50
        assert source.reads == 1

    @pytest.mark.parametrize(("kind", "seen"), [(SingleFlight, 1), (NaiveSingleFlight, 0)])
    async def test_caller_after_a_read_began_gets_the_next_one(
        self, kind: type[SingleFlight[int]], seen: int
    ) -> None:
        source = Source()
        joined = kind(source.read)
        source.answer.clear()
        first = asyncio.create_task(joined.read())
        await turns()

        # A write is acknowledged before the second caller reads.
        source.value = 1
        second = asyncio.create_task(joined.read())
        await turns()
        source.answer.set()

        assert await first == 0
        assert await second == seen

    async def test_caller_joins_a_read_that_waits_for_a_connection(self) -> None:
        source = Source()
        joined = SingleFlight(source.read)
        source.connection.clear()
        first = asyncio.create_task(joined.read())
        await turns()
        source.value = 1
        second = asyncio.create_task(joined.read())
        await turns()
        source.connection.set()

        assert [await first, await second] == [1, 1]
        assert source.reads == 1

    async def test_cancelled_caller_does_not_affect_the_others(self) -> None:
        source = Source()
        joined = SingleFlight(source.read)
        source.answer.clear()
        readers = [asyncio.create_task(joined.read()) for _ in range(3)]
        await turns()
        readers[0].cancel()
        await turns()
        source.answer.set()

        assert await asyncio.gather(*readers[1:]) == [0, 0]
        assert readers[0].cancelled()

    async def test_failure_reaches_only_the_callers_that_shared_the_read(self) -> None:
        source = Source()
        joined = SingleFlight(source.read)
        source.failure = NotFound("Gone.", headers={"Catalog-Position": "7"})
        failed = await asyncio.gather(*(joined.read() for _ in range(3)), return_exceptions=True)
        source.failure = None

        assert [type(error) for error in failed] == [NotFound] * 3
        # Each caller gets a copy, because its request may add headers to it.
        assert len(set(map(id, failed))) == 3
        assert await joined.read() == 0

    async def test_failure_before_a_read_begins_reaches_all_waiters(self) -> None:
        async def refuse(_: Callable[[], None]) -> int:
            await turns()
            raise Overloaded

        joined = SingleFlight(refuse)
        readers = [asyncio.create_task(joined.read()) for _ in range(3)]
        failed = await asyncio.gather(*readers, return_exceptions=True)

        assert [type(error) for error in failed] == [Overloaded] * 3

    async def test_limit_applies_to_a_hanging_read_and_to_waiters_for_the_next(self) -> None:
        source = Source()
        source.answer.clear()
        joined = SingleFlight(source.read, limit=0.05, timed_out=DatabaseUnavailable)
        first = asyncio.create_task(joined.read())
        await turns()
        # The second caller waits for the next read to begin.
        second = asyncio.create_task(joined.read())

        failed = await asyncio.gather(first, second, return_exceptions=True)

        assert source.reads == 1
        assert [type(error) for error in failed] == [DatabaseUnavailable] * 2
        source.answer.set()
        assert await joined.read() == 0

    async def test_idle_callback_runs_when_no_caller_is_left(self) -> None:
        idle: list[int] = []
        source = Source()
        joined = SingleFlight(source.read, when_idle=lambda: idle.append(source.reads))

        await asyncio.gather(joined.read(), joined.read())
        await joined.read()

        assert idle == [1, 2]

    async def test_load_is_awaited_until_it_begins(self) -> None:
        source = Source()
        source.connection.clear()
        source.answer.clear()
        joined = SingleFlight(source.read)
        assert joined.is_awaited is False

        reader = asyncio.create_task(joined.read())
        await turns()
        assert joined.is_awaited is True

        source.connection.set()
        await turns()
        assert joined.is_awaited is False

        source.answer.set()
        assert await reader == 0

    async def test_caller_is_cancelled_when_the_load_is(self) -> None:
        async def cancelled(_: Callable[[], None]) -> int:
            raise asyncio.CancelledError

        joined = SingleFlight(cancelled)

        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(joined.read(), 5)

    async def test_limit_counts_from_the_given_time(self) -> None:
        source = Source()
        source.answer.clear()
        joined = SingleFlight(source.read, limit=3600, timed_out=DatabaseUnavailable)
        since = asyncio.get_running_loop().time() - 3600

        with pytest.raises(DatabaseUnavailable):
            await asyncio.wait_for(joined.read(since=since), 5)

        source.answer.set()

    async def test_values_are_not_kept_after_their_callers_have_them(self) -> None:
        values: list[weakref.ref[Loaded]] = []
        answer = asyncio.Event()

        async def load(begin: Callable[[], None]) -> Loaded:
            begin()
            value = Loaded()
            values.append(weakref.ref(value))
            await answer.wait()
            answer.clear()
            return value

        joined = SingleFlight(load)
        reader = asyncio.create_task(joined.read())
        for _ in range(3):
            await turns()
            following = asyncio.create_task(joined.read())
            answer.set()
            await reader
            reader = following
        await turns()
        gc.collect()
        # The fourth load is in progress, and the task still has the third value.
        assert [value() is None for value in values] == [True, True, False, False]

        answer.set()
        await reader
        del reader, following
        await turns()
        gc.collect()
        assert [value() for value in values] == [None] * 4
