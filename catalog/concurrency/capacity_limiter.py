"""Capacity limiter: bounds how many operations run at the same time, without a queue."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CapacityLimiter:
    """Limit of concurrent operations; callers beyond it are rejected at once.

    Args:
        count: operations that may run at the same time.
        refusal: makes the error for a rejected caller.
    """

    def __init__(self, count: int, refusal: Callable[[], Exception]) -> None:
        self._free = count
        self._refusal = refusal

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold one slot.

        Raises:
            Exception: what ``refusal`` makes, if all slots are taken.
        """
        if self._free == 0:
            raise self._refusal()
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1
