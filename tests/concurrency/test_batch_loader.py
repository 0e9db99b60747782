"""BatchLoader: concurrent reads share a round trip and see all earlier commits."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest

from catalog.concurrency.batch_loader import MAX_TOGETHER, BatchLoader
from catalog.errors import DatabaseBusy, DatabaseUnavailable
from catalog.products.overload import page_expired


class Source:
    """Source that answers ten times the question and can be blocked before and after its read."""

    def __init__(self) -> None:
        self.trips: list[list[int]] = []
        self.asking = 0
        self.connection = asyncio.Event()
        self.answer = asyncio.Event()
        self.connection.set()
        self.answer.set()
        self.failures: Iterator[Exception] = iter(())

    async def ask(self, take: Callable[[], Sequence[int]]) -> list[int]:
        self.asking += 1
        await self.connection.wait()
        taken = list(take())
        self.trips.append(taken)
        await self.answer.wait()
        for failure in self.failures:
            raise failure
        return [10 * question for question in taken]


class UnbatchedLoader(BatchLoader[int, int]):
    """Negative control: takes one question before it has a connection, so nothing is batched."""

    async def _run(self) -> None:
        while self._queue:
            asking = self._queue.popleft()
            (answer,) = await self._ask(partial(list, [asking.question]))
            asking.outcome.set_result(answer)


def together(
    source: Source,
    kind: type[BatchLoader[int, int]] = BatchLoader,
    *,
    trips: int = 1,
    patience: float = 5.0,
) -> BatchLoader[int, int]:
    return kind(source.ask, trips=trips, patience=patience, expired=page_expired)


def asked(
    line: BatchLoader[int, int], *questions: int, begun: list[int] | None = None
) -> list[asyncio.Task[int]]:
    """Start a task for each question and return the tasks."""
    begun = [] if begun is None else begun
    return [asyncio.create_task(line.ask(each, partial(begun.append, each))) for each in questions]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class TestBatchLoader:
    @pytest.mark.parametrize(("kind", "trips"), [(BatchLoader, 1), (UnbatchedLoader, 5)])
    async def test_questions_that_wait_for_a_connection_share_a_trip(
        self, kind: type[BatchLoader[int, int]], trips: int
    ) -> None:
        source = Source()
        source.connection.clear()
        tasks = asked(together(source, kind), 1, 2, 3, 4, 5)
        await turns()
        source.connection.set()

        assert await asyncio.gather(*tasks) == [10, 20, 30, 40, 50]
        assert len(source.trips) == trips

    async def test_lone_question_does_not_wait(self) -> None:
        source = Source()
        line = together(source)

        assert [await line.ask(number, lambda: None) for number in range(3)] == [0, 10, 20]
        assert source.trips == [[0], [1], [2]]

    async def test_question_asked_after_a_trip_began_joins_the_next_one(self) -> None:
        source = Source()
        line = together(source)
        begun: list[int] = []
        source.answer.clear()
        first = asked(line, 1, 2, begun=begun)
        await turns()
        assert begun == [1, 2]

        second = asked(line, 3, 4, begun=begun)
        await turns()
        assert begun == [1, 2]
        source.answer.set()

        assert await asyncio.gather(*first, *second) == [10, 20, 30, 40]
        assert source.trips == [[1, 2], [3, 4]]
        assert begun == [1, 2, 3, 4]

    async def test_batch_size_and_concurrent_trips_are_bounded(self) -> None:
        source = Source()
        line = together(source, trips=3)
        source.connection.clear()
        numbers = range(4 * MAX_TOGETHER + 1)
        tasks = asked(line, *numbers)
        await turns()
        assert source.asking == 3
        source.connection.set()

        assert await asyncio.gather(*tasks) == [10 * number for number in numbers]
        assert [len(trip) for trip in source.trips if trip] == [MAX_TOGETHER] * 4 + [1]

    async def test_retried_trip_keeps_its_questions_and_begins_anew(self) -> None:
        source = Source()
        begun: list[int] = []
        late: list[asyncio.Task[int]] = []

        async def ask(take: Callable[[], Sequence[int]]) -> list[int]:
            if not late:
                # The loader asks again, for example when an idle connection was lost.
                take()
                late.extend(asked(line, 3, begun=begun))
                await turns()
            return await source.ask(take)

        line = BatchLoader(ask, trips=1, patience=5.0)
        tasks = asked(line, 1, 2, begun=begun)
        assert await asyncio.gather(*tasks) == [10, 20]
        assert await late[0] == 30
        assert source.trips == [[1, 2], [3]]
        assert begun == [1, 2, 1, 2, 3]

    async def test_cancelled_question_is_not_asked(self) -> None:
        source = Source()
        line = together(source)
        source.connection.clear()
        tasks = asked(line, 1, 2, 3)
        await turns()
        tasks[1].cancel()
        await turns()
        source.connection.set()

        assert await asyncio.gather(*tasks[::2]) == [10, 30]
        assert source.trips == [[1, 3]]

    async def test_cancellation_during_a_trip_does_not_affect_other_questions(self) -> None:
        source = Source()
        source.answer.clear()
        tasks = asked(together(source), 1, 2)
        await turns()
        tasks[0].cancel()
        await turns()
        source.answer.set()

        assert await tasks[1] == 20

    async def test_failure_reaches_only_the_questions_of_its_trip(self) -> None:
        source = Source()
        line = together(source)
        source.answer.clear()
        source.failures = iter([DatabaseUnavailable()])
        first = asked(line, 1, 2)
        await turns()
        second = asked(line, 3)
        await turns()
        source.answer.set()

        found = await asyncio.gather(*first, return_exceptions=True)
        assert [type(each) for each in found] == [DatabaseUnavailable] * 2
        assert found[0] is not found[1]
        assert await second[0] == 30

    async def test_checkout_failure_reaches_only_questions_that_waited_for_it(self) -> None:
        source = Source()

        async def ask(take: Callable[[], Sequence[int]]) -> list[int]:
            if not source.trips:
                await source.connection.wait()
                source.trips.append([])
                raise DatabaseBusy
            return [10 * question for question in take()]

        source.connection.clear()
        line = BatchLoader(ask, trips=1, patience=5.0)
        early = asked(line, 1)
        await turns()
        await asyncio.sleep(0.02)
        late = asked(line, 2)
        await turns()
        source.connection.set()

        with pytest.raises(DatabaseBusy):
            await early[0]
        assert await late[0] == 20

    async def test_question_that_waits_longer_than_patience_is_refused(self) -> None:
        source = Source()
        line = together(source, patience=0.05)
        source.answer.clear()
        first = asked(line, 1)
        await turns()
        second = asked(line, 2)
        await asyncio.sleep(0.1)
        third = asked(line, 3)
        await turns()
        source.answer.set()

        assert await first[0] == 10
        with pytest.raises(DatabaseBusy):
            await second[0]
        assert await third[0] == 30
        assert source.trips == [[1], [3]]

    async def test_finished_trip_is_not_kept(self) -> None:
        source = Source()
        trips: list[weakref.ref[asyncio.Task[object]]] = []

        async def ask(take: Callable[[], Sequence[int]]) -> list[int]:
            task = asyncio.current_task()
            assert task is not None
            trips.append(weakref.ref(task))
            return await source.ask(take)

        line = BatchLoader(ask, trips=1, patience=5.0)
        assert await line.ask(1, lambda: None) == 10
        await turns()
        gc.collect()

        assert [trip() for trip in trips] == [None]
