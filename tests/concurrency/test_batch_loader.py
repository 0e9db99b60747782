"""BatchLoader: concurrent loads share a read that sees every commit before their calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from catalog.concurrency.batch_loader import MAX_BATCH, RESOLUTION_SECONDS, BatchLoader
from catalog.errors import DatabaseBusy, DatabaseUnavailable
from tests.concurrency.connections import Source, turns

Loader = BatchLoader[int, int, None, int, int]


class NaiveLoader(Loader):
    """Negative control: callers join a read in progress, which may be stale."""

    async def load(self, key: int, question: int, *, since: float | None = None) -> int:
        caller = asyncio.ensure_future(super().load(key, question, since=since))
        await asyncio.sleep(0)
        for load in self._loads.values():
            if load.sharing:
                load.sharing += load.waiting
                load.waiting = []
        return await caller


def loader_of(source: Source, kind: type[Loader] = BatchLoader, **options: Any) -> Loader:
    defaults: dict[str, Any] = {
        "max_concurrent_reads": 1,
        "wait_seconds": 5.0,
        "expired": DatabaseBusy,
    }
    return kind(source.connect, source.read, lambda _, answer: answer, **defaults | options)


def loading(loader: Loader, *keys: int) -> list[asyncio.Task[int]]:
    """Start a task for each key and return the tasks."""
    return [asyncio.create_task(loader.load(key, key)) for key in keys]


class TestBatches:
    @pytest.mark.parametrize(("max_batch", "reads"), [(MAX_BATCH, 1), (1, 5)])
    async def test_loads_that_wait_for_a_connection_share_a_read(
        self, max_batch: int, reads: int
    ) -> None:
        source = Source()
        source.connection.clear()
        tasks = loading(loader_of(source, max_batch=max_batch), 1, 2, 3, 4, 5)
        await turns()
        source.connection.set()

        assert await asyncio.gather(*tasks) == [10, 20, 30, 40, 50]
        assert len(source.reads) == reads

    async def test_lone_load_does_not_wait(self) -> None:
        source = Source()
        loader = loader_of(source)

        assert [await loader.load(key, key) for key in range(3)] == [0, 10, 20]
        assert source.reads == [[0], [1], [2]]
        assert len(loader) == 0

    async def test_turn_may_end_after_each_conversion(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # So that each conversion takes longer than a turn.
        monkeypatch.setattr("catalog.concurrency.turns.TURN_SECONDS", -1.0)
        source = Source()
        converted: list[int] = []
        seen: list[int] = []

        def convert(key: int, answer: int) -> int:
            converted.append(key)
            return answer

        async def watch() -> None:
            while len(converted) < 3:
                await asyncio.sleep(0)
                seen.append(len(converted))

        loader: Loader = BatchLoader(source.connect, source.read, convert, max_concurrent_reads=1)
        watching = asyncio.create_task(watch())
        answers = await asyncio.gather(*loading(loader, 1, 2, 3))
        await watching

        assert answers == [10, 20, 30]
        assert source.reads == [[1, 2, 3]]
        assert {1, 2, 3} <= set(seen)

    async def test_cancelled_read_between_conversions_leaves_no_caller(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.concurrency.turns.TURN_SECONDS", -1.0)
        source = Source()

        def convert(_: int, answer: int) -> int:
            (task,) = loader._tasks
            task.cancel()
            return answer

        loader: Loader = BatchLoader(source.connect, source.read, convert, max_concurrent_reads=1)
        tasks = loading(loader, 1, 2)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

        assert outcomes[0] == 10
        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert len(loader) == 0

    async def test_load_that_comes_after_a_read_began_joins_the_next_one(self) -> None:
        source = Source()
        loader = loader_of(source)
        source.answer.clear()
        first = loading(loader, 1, 2)
        await turns()
        second = loading(loader, 3, 4)
        await turns()
        assert source.reads == [[1, 2]]
        source.answer.set()

        assert await asyncio.gather(*first, *second) == [10, 20, 30, 40]
        assert source.reads == [[1, 2], [3, 4]]

    async def test_batch_size_and_concurrent_reads_are_bounded(self) -> None:
        source = Source()
        loader = loader_of(source, max_concurrent_reads=3)
        source.connection.clear()
        keys = range(4 * MAX_BATCH + 1)
        tasks = loading(loader, *keys)
        await turns()
        assert source.connecting == 3
        source.connection.set()

        assert await asyncio.gather(*tasks) == [10 * key for key in keys]
        assert [len(read) for read in source.reads] == [MAX_BATCH] * 4 + [1]


class TestSharing:
    async def test_equal_loads_share_a_place_and_a_converted_value(self) -> None:
        source = Source()
        values: list[str] = []

        def convert(question: int, answer: int) -> str:
            values.append(f"{question}: {answer}")
            return values[-1]

        loader: BatchLoader[int, int, None, int, str]
        loader = BatchLoader(source.connect, source.read, convert, max_concurrent_reads=1)
        found = await asyncio.gather(*(loader.load(key, key) for key in (1, 2, 1, 1)))

        assert found == ["1: 10", "2: 20", "1: 10", "1: 10"]
        assert source.reads == [[1, 2]]
        assert values == ["1: 10", "2: 20"]

    @pytest.mark.parametrize(("kind", "seen"), [(BatchLoader, 1), (NaiveLoader, 0)])
    @pytest.mark.parametrize("at_once", [1, 3])
    async def test_caller_after_a_read_began_sees_what_was_committed_before_its_call(
        self, kind: type[Loader], seen: int, at_once: int
    ) -> None:
        source = Source(lambda _: source.value)
        loader = loader_of(source, kind, max_concurrent_reads=at_once)
        source.answer.clear()
        first = loading(loader, 1)
        await turns()
        assert not loader.is_awaited(1)
        assert 1 in loader

        # A write is acknowledged before the second caller's call.
        source.value = 1
        second = loading(loader, 1)
        await turns()
        source.answer.set()

        assert await first[0] == 0
        assert await second[0] == seen

    async def test_callers_join_a_load_until_there_is_a_connection(self) -> None:
        source = Source(lambda _: source.value)
        loader = loader_of(source)
        source.connection.clear()
        first = loading(loader, 1)
        await turns()
        assert loader.is_awaited(1)
        source.value = 1
        second = loading(loader, 1)
        await turns()
        source.connection.set()

        assert await asyncio.gather(*first, *second) == [1, 1]
        assert source.reads == [[1]]

    async def test_key_has_one_read_at_a_time(self) -> None:
        source = Source()
        loader = loader_of(source, max_concurrent_reads=3)
        source.answer.clear()
        tasks = loading(loader, 1)
        for _ in range(3):
            await turns()
            tasks += loading(loader, 1)
        await turns()
        assert source.reads == [[1]]
        source.answer.set()

        assert await asyncio.gather(*tasks) == [10] * 4
        assert source.reads == [[1], [1]]


class TestCancellation:
    async def test_cancelled_load_is_not_read(self) -> None:
        source = Source()
        loader = loader_of(source)
        source.connection.clear()
        tasks = loading(loader, 1, 2, 3)
        await turns()
        tasks[1].cancel()
        await turns()
        source.connection.set()

        assert await asyncio.gather(*tasks[::2]) == [10, 30]
        assert source.reads == [[1, 3]]
        assert len(loader) == 0

    async def test_cancellation_during_a_read_does_not_affect_others(self) -> None:
        source = Source()
        source.answer.clear()
        loader = loader_of(source)
        tasks = loading(loader, 1, 1, 2)
        await turns()
        tasks[0].cancel()
        await turns()
        source.answer.set()

        assert await asyncio.gather(*tasks[1:]) == [10, 20]

    async def test_key_can_be_loaded_again_after_its_read_was_cancelled(self) -> None:
        source = Source()
        source.failures = iter([asyncio.CancelledError()])  # type: ignore[list-item]  # as a driver raises it
        loader = loader_of(source)

        with pytest.raises(asyncio.CancelledError):
            await loader.load(1, 1)

        assert await loader.load(1, 1) == 10


class TestFailures:
    async def test_failure_reaches_only_the_loads_of_its_read(self) -> None:
        source = Source()
        loader = loader_of(source)
        source.answer.clear()
        source.failures = iter([DatabaseUnavailable()])
        first = loading(loader, 1, 2)
        await turns()
        second = loading(loader, 3)
        await turns()
        source.answer.set()

        found = await asyncio.gather(*first, return_exceptions=True)
        assert [type(each) for each in found] == [DatabaseUnavailable] * 2
        assert found[0] is not found[1]
        assert await second[0] == 30

    async def test_failed_conversion_reaches_only_its_own_load(self) -> None:
        source = Source()

        def convert(question: int, answer: int) -> float:
            return answer / (question - 1)

        loader: BatchLoader[int, int, None, int, float]
        loader = BatchLoader(source.connect, source.read, convert, max_concurrent_reads=1)
        found = await asyncio.gather(
            *(loader.load(key, key) for key in (1, 2)), return_exceptions=True
        )

        assert isinstance(found[0], ZeroDivisionError)
        assert found[1] == 20.0
        assert len(loader) == 0

    async def test_failure_to_connect_reaches_only_loads_that_waited_for_it(self) -> None:
        source = Source()

        @asynccontextmanager
        async def connect() -> AsyncIterator[None]:
            if not source.connecting:
                source.connecting += 1
                await source.connection.wait()
                raise DatabaseBusy
            yield

        source.connection.clear()
        loader: Loader = BatchLoader(
            connect, source.read, lambda _, answer: answer, max_concurrent_reads=1
        )
        early = asyncio.create_task(loader.load(1, 1))
        await turns()
        await asyncio.sleep(0.02)
        late = asyncio.create_task(loader.load(2, 2))
        await turns()
        source.connection.set()

        with pytest.raises(DatabaseBusy):
            await early
        assert await late == 20


class TestTime:
    async def test_load_that_waits_too_long_is_refused(self) -> None:
        source = Source()
        loader = loader_of(source, wait_seconds=0.5)
        source.answer.clear()
        first = loading(loader, 1)
        await turns()
        second = loading(loader, 2)
        await asyncio.sleep(0.8)
        third = loading(loader, 3)
        await turns()
        source.answer.set()

        assert await first[0] == 10
        with pytest.raises(DatabaseBusy):
            await second[0]
        assert await third[0] == 30
        assert source.reads == [[1], [3]]

    async def test_limit_counts_from_the_given_moment(self) -> None:
        source = Source()
        source.answer.clear()
        loader = loader_of(source, deadline_seconds=1.5, timed_out=DatabaseUnavailable)
        clock = asyncio.get_running_loop().time
        load = partial(loader.load, 1, 1)
        began = clock()
        late = asyncio.create_task(load())
        early = asyncio.create_task(load(since=began - 1.4))

        with pytest.raises(DatabaseUnavailable):
            await early
        assert not late.done()
        with pytest.raises(DatabaseUnavailable):
            await late
        assert clock() - began >= 1.5
        source.answer.set()
        assert await load() == 10

    async def test_late_deadline_is_not_forgotten_for_an_earlier_one(self) -> None:
        source = Source()
        source.answer.clear()
        loader = loader_of(source, deadline_seconds=1, timed_out=DatabaseUnavailable)
        began = asyncio.get_running_loop().time()

        # These deadlines are 0.1 s apart.
        callers = [loader.load(key, key, since=began + key / 10 - 0.9) for key in range(2)]
        async with asyncio.timeout(1):
            outcomes = await asyncio.gather(*callers, return_exceptions=True)

        assert all(isinstance(each, DatabaseUnavailable) for each in outcomes)

    async def test_callers_with_one_deadline_share_a_timer(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = Source()
        source.answer.clear()
        loader = loader_of(source, deadline_seconds=0.5, timed_out=DatabaseUnavailable)
        event_loop = asyncio.get_running_loop()
        call_at, looks = event_loop.call_at, 0

        def counted(when: float, look: Any, *args: Any, **options: Any) -> Any:
            nonlocal looks
            looks += getattr(look, "__self__", None) is loader
            return call_at(when, look, *args, **options)

        monkeypatch.setattr(event_loop, "call_at", counted)
        began = event_loop.time()
        callers = [loader.load(key, key, since=began + key / 1000) for key in range(400)]

        outcomes = await asyncio.gather(*callers, return_exceptions=True)

        assert all(isinstance(each, DatabaseUnavailable) for each in outcomes)
        # Without a resolution, a look for each.
        assert looks <= (event_loop.time() - began) / RESOLUTION_SECONDS + 2
        source.answer.set()
        assert await loader.load(1, 1) == 10
