"""Stores of the rate limiter: this process's memory, or a Redis that all instances share.

The algorithm is the sliding window counter of ``limits``: two numbers for each client. Its moving
window is exact, whereas the counter interpolates, but it stores the times of all requests, 6,000
of them for a busy client.
"""

from pydantic import SecretStr

from catalog.http.limit_store.base import Count, LimitStore, StoreUnavailable
from catalog.http.limit_store.circuit_breaker import CircuitBreaker
from catalog.http.limit_store.memory import MAX_COUNTERS, MemoryStore

__all__ = [
    "MAX_COUNTERS",
    "CircuitBreaker",
    "Count",
    "LimitStore",
    "MemoryStore",
    "StoreUnavailable",
    "create_store",
]


def create_store(url: SecretStr | None) -> LimitStore:
    """Return the shared store at a URL; without one, a store in this process's memory."""
    if url is None:
        return MemoryStore()
    # Imported late: the client of Redis takes 7 MB of each worker, and most services share nothing.
    from catalog.http.limit_store.redis import RedisStore

    return CircuitBreaker(RedisStore(url.get_secret_value()), MemoryStore())
