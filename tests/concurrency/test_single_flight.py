"""Concurrent reads share a load, which shows all that had been committed when they began."""

import asyncio
from collections.abc import Callable

import pytest

from catalog.concurrency.single_flight import SingleFlight
from catalog.errors import DatabaseUnavailable, NotFound, Overloaded


class Source:
    """What is read: a number that counts up, and can be held up before or after it is looked at."""

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


class NaiveSingleFlight(SingleFlight[int]):
    """Whoever comes joins what is under way: the usual "single flight", which is stale."""

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
    async def test_those_who_wait_together_share_one_read(self) -> None:
        source = Source()
        joined = SingleFlight(source.read)

        assert await asyncio.gather(*(joined.read() for _ in range(50))) == [0] * 50
        assert source.reads == 1

    @pytest.mark.parametrize(("kind", "seen"), [(SingleFlight, 1), (NaiveSingleFlight, 0)])
    async def test_who_comes_after_it_began_gets_the_next_one(
        self, kind: type[SingleFlight[int]], seen: int
    ) -> None:
        source = Source()
        joined = kind(source.read)
        source.answer.clear()
        first = asyncio.create_task(joined.read())
        await turns()

        # A write is acknowledged, and only then somebody asks.
        source.value = 1
        second = asyncio.create_task(joined.read())
        await turns()
        source.answer.set()

        assert await first == 0
        assert await second == seen

    async def test_who_comes_while_it_waits_for_a_connection_joins(self) -> None:
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

    async def test_who_gives_up_takes_nobody_along(self) -> None:
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

    async def test_a_failure_is_told_to_those_who_shared_it_and_to_nobody_else(self) -> None:
        source = Source()
        joined = SingleFlight(source.read)
        source.failure = NotFound("Gone.", headers={"Catalog-Position": "7"})
        failed = await asyncio.gather(*(joined.read() for _ in range(3)), return_exceptions=True)
        source.failure = None

        assert [type(error) for error in failed] == [NotFound] * 3
        # Each its own, to which its request may add headers.
        assert len(set(map(id, failed))) == 3
        assert await joined.read() == 0

    async def test_a_failure_to_begin_is_told_to_all_who_wait(self) -> None:
        async def refuse(_: Callable[[], None]) -> int:
            await turns()
            raise Overloaded

        joined = SingleFlight(refuse)
        readers = [asyncio.create_task(joined.read()) for _ in range(3)]
        failed = await asyncio.gather(*readers, return_exceptions=True)

        assert [type(error) for error in failed] == [Overloaded] * 3

    async def test_limit_holds_while_a_read_hangs_and_for_the_next_one(self) -> None:
        source = Source()
        source.answer.clear()
        joined = SingleFlight(source.read, limit=0.05)
        first = asyncio.create_task(joined.read())
        await turns()
        # This one waits for the next read to begin.
        second = asyncio.create_task(joined.read())

        failed = await asyncio.gather(first, second, return_exceptions=True)

        assert source.reads == 1
        assert [type(error) for error in failed] == [DatabaseUnavailable] * 2
        source.answer.set()
        assert await joined.read() == 0

    async def test_it_tells_when_nobody_is_left(self) -> None:
        idle: list[int] = []
        source = Source()
        joined = SingleFlight(source.read, when_idle=lambda: idle.append(source.reads))

        await asyncio.gather(joined.read(), joined.read())
        await joined.read()

        assert idle == [1, 2]
