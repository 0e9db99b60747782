"""Rate limit stores, opened and hit by tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from catalog.http.limit_store import LimitStore
from catalog.http.limit_store.redis import RedisStore
from catalog.settings import Rate
from tests.http.redis_server import RedisServer

# Long enough that a window hardly ever ends during a test.
HOURLY = Rate(5, 3600)

# Time-out in seconds where timing is not under test: the machine may be busy.
PATIENT = 10.0


def remote(redis: RedisServer, *, timeout_seconds: float = PATIENT) -> RedisStore:
    return RedisStore(redis.url, timeout_seconds=timeout_seconds)


@asynccontextmanager
async def opened(store: LimitStore) -> AsyncIterator[LimitStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def admitted(store: LimitStore, key: str, count: int, rate: Rate = HOURLY) -> int:
    """Return how many of ``count`` concurrent requests are admitted."""
    counts = await asyncio.gather(*(store.hit(rate, key) for _ in range(count)))
    return sum(each.admitted for each in counts)
