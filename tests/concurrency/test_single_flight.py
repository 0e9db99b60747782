"""SingleFlight: concurrent callers share a read that sees every commit before their calls."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from catalog.concurrency.single_flight import SingleFlight
from catalog.errors import DatabaseUnavailable, NotFound, Overloaded
from tests.concurrency.connections import Source, turns


class NaiveSingleFlight(SingleFlight[None, int]):
    """Negative control: the usual single-flight, where late callers join a stale read."""

    _reading: "asyncio.Future[int] | None" = None

    def load(self, *, since: float | None = None) -> Awaitable[int]:
        if self._reading is None:
            self._reading = asyncio.ensure_future(super().load(since=since))
        return asyncio.shield(self._reading)


class TestSingleFlight:
    async def test_concurrent_callers_share_one_read(self) -> None:
        source = Source()
        flight = SingleFlight(source.connect, source.read_value)

        assert await asyncio.gather(*(flight.load() for _ in range(50))) == [0] * 50
        assert len(source.reads) == 1

    @pytest.mark.parametrize(("kind", "seen"), [(SingleFlight, 1), (NaiveSingleFlight, 0)])
    async def test_caller_after_a_read_began_gets_the_next_one(
        self, kind: type[SingleFlight[None, int]], seen: int
    ) -> None:
        source = Source()
        flight = kind(source.connect, source.read_value)
        source.answer.clear()
        first = asyncio.ensure_future(flight.load())
        await turns()

        # A write is acknowledged before the second caller reads.
        source.value = 1
        second = asyncio.ensure_future(flight.load())
        await turns()
        source.answer.set()

        assert await first == 0
        assert await second == seen

    async def test_caller_joins_a_read_that_waits_for_a_connection(self) -> None:
        source = Source()
        flight = SingleFlight(source.connect, source.read_value)
        source.connection.clear()
        first = asyncio.ensure_future(flight.load())
        await turns()
        source.value = 1
        second = asyncio.ensure_future(flight.load())
        await turns()
        source.connection.set()

        assert [await first, await second] == [1, 1]
        assert len(source.reads) == 1

    async def test_cancelled_caller_does_not_affect_the_others(self) -> None:
        source = Source()
        flight = SingleFlight(source.connect, source.read_value)
        source.answer.clear()
        callers = [asyncio.ensure_future(flight.load()) for _ in range(3)]
        await turns()
        callers[0].cancel()
        await turns()
        source.answer.set()

        assert await asyncio.gather(*callers[1:]) == [0, 0]
        assert callers[0].cancelled()

    async def test_failure_reaches_only_the_callers_that_shared_the_read(self) -> None:
        source = Source()
        flight = SingleFlight(source.connect, source.read_value)
        source.failures = iter([NotFound("Gone.", headers={"Catalog-Position": "7"})])
        failed = await asyncio.gather(*(flight.load() for _ in range(3)), return_exceptions=True)

        assert [type(error) for error in failed] == [NotFound] * 3
        # Each caller gets a copy, because its request may add headers to it.
        assert len(set(map(id, failed))) == 3
        assert await flight.load() == 0

    async def test_failure_to_connect_reaches_all_waiters(self) -> None:
        @asynccontextmanager
        async def refuse() -> AsyncIterator[None]:
            await turns()
            raise Overloaded
            yield

        flight = SingleFlight(refuse, Source().read_value)
        callers = [asyncio.ensure_future(flight.load()) for _ in range(3)]
        failed = await asyncio.gather(*callers, return_exceptions=True)

        assert [type(error) for error in failed] == [Overloaded] * 3

    async def test_limit_applies_to_a_hanging_read_and_to_waiters_for_the_next(self) -> None:
        source = Source()
        source.answer.clear()
        flight = SingleFlight(
            source.connect, source.read_value, deadline_seconds=0.05, timed_out=DatabaseUnavailable
        )
        first = asyncio.ensure_future(flight.load())
        await turns()
        # The second caller waits for the next read to begin.
        second = asyncio.ensure_future(flight.load())

        failed = await asyncio.gather(first, second, return_exceptions=True)

        assert len(source.reads) == 1
        assert [type(error) for error in failed] == [DatabaseUnavailable] * 2
        source.answer.set()
        assert await flight.load() == 0
