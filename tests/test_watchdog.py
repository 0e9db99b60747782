"""The watchdog of the event loop detects blocking work, and nothing else."""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator

import pytest

from tests.watchdog import LoopBlocked, Watchdog

BLOCKED = 0.07
"""CPU seconds above the limit, so that a watchdog that detects nothing fails here."""

HARMLESS = 0.002


def work(seconds: float) -> None:
    """Keep the thread busy for that much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def work_in_pieces(count: int, seconds: float) -> None:
    for _ in range(count):
        work(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def unpatched() -> Iterator[None]:
    before = vars(asyncio.Handle)["_run"]
    yield
    assert vars(asyncio.Handle)["_run"] is before
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("unpatched")
class TestWatchdog:
    async def test_long_step_of_another_task_is_caught(self) -> None:
        with pytest.raises(LoopBlocked, match="work_in_pieces"), Watchdog() as watchdog:
            await asyncio.create_task(work_in_pieces(1, BLOCKED))

        assert watchdog.longest >= BLOCKED

    async def test_long_callback_is_caught(self) -> None:
        done = asyncio.Event()

        def call_back() -> None:
            work(BLOCKED)
            done.set()

        asyncio.get_running_loop().call_later(0, call_back)
        with pytest.raises(LoopBlocked, match="call_back"), Watchdog():
            await done.wait()

    async def test_long_step_of_the_test_itself_is_caught(self) -> None:
        with pytest.raises(LoopBlocked), Watchdog():
            work(BLOCKED)

    async def test_long_step_after_an_await_is_caught(self) -> None:
        async def work_later() -> None:
            await asyncio.sleep(0)
            work(BLOCKED)

        with pytest.raises(LoopBlocked), Watchdog():
            await work_later()

    async def test_long_step_before_an_await_is_caught(self) -> None:
        with pytest.raises(LoopBlocked), Watchdog():
            await work_in_pieces(1, BLOCKED)

    def test_long_call_without_a_loop_is_caught(self) -> None:
        with pytest.raises(LoopBlocked), Watchdog():
            work(BLOCKED)

    async def test_same_work_in_slices_passes(self) -> None:
        with Watchdog() as watchdog:
            await asyncio.create_task(work_in_pieces(50, HARMLESS))

        assert HARMLESS <= watchdog.longest < BLOCKED

    async def test_same_work_in_a_thread_passes(self) -> None:
        with Watchdog() as watchdog:
            await asyncio.to_thread(work, BLOCKED)

        assert watchdog.longest < BLOCKED

    async def test_waiting_passes(self) -> None:
        with Watchdog() as watchdog:
            await asyncio.sleep(BLOCKED)

        assert watchdog.longest < BLOCKED

    async def test_work_before_and_after_is_not_counted(self) -> None:
        work(BLOCKED)
        with Watchdog() as watchdog:
            await asyncio.sleep(0)
        work(BLOCKED)

        assert watchdog.longest < BLOCKED

    async def test_loop_of_another_thread_is_not_counted(self) -> None:
        thread = threading.Thread(target=asyncio.run, args=(work_in_pieces(1, BLOCKED),))
        with Watchdog() as watchdog:
            thread.start()
            await asyncio.to_thread(thread.join)

        assert watchdog.longest < BLOCKED

    async def test_error_in_the_block_is_not_replaced(self) -> None:
        def fail() -> None:
            work(BLOCKED)
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"), Watchdog():
            fail()

    async def test_old_garbage_is_not_counted(self) -> None:
        old = [[[number]] for number in range(400_000)]
        begin = time.thread_time()
        gc.collect()
        collection = time.thread_time() - begin

        with Watchdog() as watchdog:
            gc.collect()

        assert watchdog.longest < collection / 2
        assert len(old) == 400_000
