"""Capacity limiter: bounds how many operations run at the same time, without a queue."""

from collections.abc import Iterator
from contextlib import contextmanager

from catalog.errors import Overloaded
from catalog.observability.metrics import Shed, count_rejection


class CapacityLimiter:
    """Limit of concurrent operations; callers beyond it are rejected at once.

    Args:
        count: operations that may run at the same time.
        refusal: detail of the error for rejected callers.
        reason: label under which rejections are counted.
    """

    def __init__(self, count: int, refusal: str, reason: Shed) -> None:
        self._free = count
        self._refusal = refusal
        self._reason = reason

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold one slot.

        Raises:
            Overloaded: all slots are taken.
        """
        if self._free == 0:
            count_rejection(self._reason)
            raise Overloaded(self._refusal)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1
