"""FairSemaphore: permits are granted first come, first served, and waiters time out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise

import pytest

from catalog.concurrency.fair_semaphore import FairSemaphore
from catalog.errors import DatabaseBusy


class OvertakingSemaphore:
    """Negative control: hands out permits as a connection pool's queue does.

    A returned permit wakes the first waiter, but a newcomer may take it before the waiter runs.
    """

    def __init__(self, size: int) -> None:
        self._free: asyncio.Queue[None] = asyncio.Queue()
        for _ in range(size):
            self._free.put_nowait(None)

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        await self._free.get()
        try:
            yield
        finally:
            self._free.put_nowait(None)


def fair(size: int) -> FairSemaphore:
    return FairSemaphore(size, wait_seconds=5)


Permits = Callable[[], AbstractAsyncContextManager[None]]

CALLERS = 8


async def longest_wait(permit: Permits) -> int:
    """Let callers loop; return the most permits that others were granted while one waited."""
    order: list[int] = []

    async def loop(caller: int) -> None:
        for _ in range(20):
            async with permit():
                await asyncio.sleep(0)
            order.append(caller)

    await asyncio.gather(*map(loop, range(CALLERS)))
    longest = 0
    for caller in range(CALLERS):
        granted = [-1, *(n for n, each in enumerate(order) if each == caller)]
        longest = max(longest, *(later - before for before, later in pairwise(granted)))
    return longest


class TestFairness:
    async def test_looping_callers_take_turns(self) -> None:
        assert await longest_wait(fair(2).permit) <= CALLERS

    async def test_queue_of_a_pool_lets_newcomers_overtake(self) -> None:
        assert await longest_wait(OvertakingSemaphore(2).permit) > 2 * CALLERS

    async def test_holders_never_exceed_the_size(self) -> None:
        semaphore = fair(3)
        most = 0

        async def hold() -> None:
            nonlocal most
            async with semaphore.permit():
                most = max(most, semaphore.in_use)
                await asyncio.sleep(0)

        await asyncio.gather(*(hold() for _ in range(20)))

        assert most == 3
        assert (semaphore.size, semaphore.in_use, semaphore.waiting) == (3, 0, 0)


async def held(semaphore: FairSemaphore, done: asyncio.Event) -> None:
    async with semaphore.permit():
        await done.wait()


class TestWaiting:
    async def test_waiter_beyond_its_time_gets_the_error(self) -> None:
        semaphore = FairSemaphore(1, wait_seconds=0.05, expired=DatabaseBusy)
        done = asyncio.Event()
        holder = asyncio.create_task(held(semaphore, done))
        await asyncio.sleep(0)

        with pytest.raises(DatabaseBusy):
            async with semaphore.permit():
                pass

        assert (semaphore.in_use, semaphore.waiting) == (1, 0)
        done.set()
        await holder

    async def test_time_of_one_wait_can_be_longer(self) -> None:
        semaphore = FairSemaphore(1, wait_seconds=0.01)
        done = asyncio.Event()
        holder = asyncio.create_task(held(semaphore, done))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, done.set)

        async with semaphore.permit(5):
            assert semaphore.in_use == 1
        await holder

    async def test_cancelled_waiter_passes_its_permit_on(self) -> None:
        semaphore, done = fair(1), asyncio.Event()
        tasks = [asyncio.create_task(held(semaphore, done)) for _ in range(3)]
        await asyncio.sleep(0)
        assert semaphore.waiting == 2
        tasks[1].cancel()
        done.set()

        await asyncio.gather(tasks[0], tasks[2])
        assert (semaphore.in_use, semaphore.waiting) == (0, 0)

    async def test_waits_are_observed(self) -> None:
        waits: list[float] = []
        semaphore = FairSemaphore(1, wait_seconds=5, on_wait=waits.append)
        done = asyncio.Event()
        tasks = [asyncio.create_task(held(semaphore, done)) for _ in range(2)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.02, done.set)
        await asyncio.gather(*tasks)

        assert waits[0] == 0.0
        assert waits[1] >= 0.01
