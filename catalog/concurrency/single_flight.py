"""Single-flight: concurrent callers share one read that begins after all their calls."""

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

from catalog.concurrency.batch_loader import BatchLoader
from catalog.concurrency.waiters import Expired

C = TypeVar("C")
R = TypeVar("R")


class SingleFlight(Generic[C, R]):
    """Loader of a single value: a batch loader with one key.

    Args:
        connect: acquires a connection. Until there is one, callers join the read.
        read: reads the value.
        deadline_seconds: time after which a caller gets an error.
        timed_out: makes that error.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[C]],
        read: Callable[[C], Awaitable[R]],
        *,
        deadline_seconds: float = math.inf,
        timed_out: Expired = TimeoutError,
    ) -> None:
        self._read = read
        self._loader: BatchLoader[None, None, C, R, R] = BatchLoader(
            connect,
            self._read_one,
            lambda _, value: value,
            max_concurrent_reads=1,
            deadline_seconds=deadline_seconds,
            timed_out=timed_out,
        )

    def load(self, *, since: float | None = None) -> Awaitable[R]:
        """Return, once it is awaited, the value as it was at some moment after that.

        Args:
            since: start of the deadline, by the loop's clock; now if not given.

        Raises:
            Exception: what ``timed_out`` makes; or a copy of the error of the shared read.
        """
        return self._loader.load(None, None, since=since)

    async def _read_one(self, connection: C, _: Sequence[None]) -> Sequence[R]:
        return [await self._read(connection)]
