"""Interface of the rate limit stores, and the decision on a request."""

from dataclasses import dataclass
from math import ceil, floor
from typing import Protocol

from catalog.settings import Rate


@dataclass(frozen=True, slots=True)
class Count:
    """The limiter's decision on one request.

    Attributes:
        admitted: whether the request is within the limit; one beyond it is not counted.
        remaining: requests that would be admitted now.
        reset_seconds: seconds until ``remaining`` grows, whole and at least 1.
    """

    admitted: bool
    remaining: int
    reset_seconds: int

    @classmethod
    def of(
        cls,
        rate: Rate,
        *,
        admitted: bool,
        previous: int,
        previous_ttl: float,
        current: int,
        current_ttl: float,
    ) -> "Count":
        """Evaluate the two windows of ``limits``, whose counters expire one length after them."""
        weighted = previous * previous_ttl / rate.seconds
        waits = []
        if weighted >= 1:
            # As the window slides, the weight of the previous one falls request by request.
            waits.append(previous_ttl % (rate.seconds / previous))
        if current:
            waits.append(current_ttl - rate.seconds)
        return cls(
            admitted=admitted,
            remaining=max(0, rate.requests - floor(weighted) - current),
            reset_seconds=max(1, ceil(min(waits, default=0))),
        )


class StoreUnavailable(Exception):
    """The shared store is unreachable, rejects the connection, or times out."""


class LimitStore(Protocol):
    """A counter of requests for rate limits."""

    async def open(self) -> None:
        """Prepare the store, before the first request.

        Raises:
            StoreUnavailable: it cannot be reached; stores that are never shared do not raise it.
        """

    async def hit(self, rate: Rate, key: str) -> Count:
        """Count a request, unless it is beyond the limit.

        Raises:
            StoreUnavailable: as ``open``.
        """

    async def close(self) -> None:
        """Close every connection and end every task."""
