"""Fair semaphore: permits are granted in the order of the requests for them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from catalog.concurrency.waiters import Expired


class FairSemaphore:
    """FIFO semaphore whose waiters time out; a newcomer never overtakes them.

    Args:
        size: permits.
        wait_seconds: longest wait for a permit.
        expired: makes the error of a caller that has waited too long.
        on_wait: called with the seconds that a caller has waited, 0.0 if a permit was free.

    Attributes:
        size: permits.
        in_use: permits that are held now.
        waiting: callers that wait for a permit now.
    """

    def __init__(
        self,
        size: int,
        *,
        wait_seconds: float,
        expired: Expired = TimeoutError,
        on_wait: Callable[[float], object] = lambda _: None,
    ) -> None:
        self.size = size
        self.in_use = self.waiting = 0
        self._wait_seconds = wait_seconds
        self._expired = expired
        self._on_wait = on_wait
        self._free = asyncio.Semaphore(size)

    @asynccontextmanager
    async def permit(self, wait_seconds: float | None = None) -> AsyncIterator[None]:
        """Wait for a permit, and hold it inside the context.

        Args:
            wait_seconds: longest wait; None for the semaphore's own.

        Raises:
            Exception: what ``expired`` makes, if no permit came free in time.
        """
        if self._free.locked():
            await self._wait(self._wait_seconds if wait_seconds is None else wait_seconds)
        else:
            # A permit is free, so no timer is needed.
            await self._free.acquire()
            self._on_wait(0.0)
        self.in_use += 1
        try:
            yield
        finally:
            self.in_use -= 1
            self._free.release()

    async def _wait(self, wait_seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        self.waiting += 1
        try:
            async with asyncio.timeout(wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise self._expired() from None
        finally:
            self.waiting -= 1
        self._on_wait(clock() - began)
