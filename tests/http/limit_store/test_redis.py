"""The store in Redis: exact counts across instances, in few round trips."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from catalog.http.limit_store import LimitStore, StoreUnavailable
from catalog.settings import Rate
from tests.http.limit_store.every_store import EveryStore
from tests.http.limit_store.stores import HOURLY, admitted, opened, remote
from tests.http.redis_server import RedisServer
from tests.support import until


class GetThenSet:
    """Counter with a race: reads the count, decides, writes it."""

    def __init__(self, redis: RedisServer) -> None:
        self._client: Redis = Redis.from_url(redis.url, max_connections=200)

    async def hit(self, rate: Rate, key: str) -> bool:
        count = int(await self._client.get(key) or 0)
        if count >= rate.requests:
            return False
        await self._client.set(key, count + 1)
        return True

    async def close(self) -> None:
        await self._client.aclose()


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[LimitStore]:
    async with opened(remote(redis)) as store:
        yield store


class TestRedisStore(EveryStore):
    async def test_instances_share_a_limit(self, redis: RedisServer) -> None:
        async with opened(remote(redis)) as first, opened(remote(redis)) as second:
            counts = await asyncio.gather(
                admitted(first, "ada", 100, Rate(50, 3600)),
                admitted(second, "ada", 100, Rate(50, 3600)),
            )

        assert sum(counts) == 50

    async def test_get_then_set_would_admit_more(self, redis: RedisServer) -> None:
        careless = GetThenSet(redis)

        passed = await asyncio.gather(*(careless.hit(Rate(50, 3600), "ada") for _ in range(100)))
        await careless.close()

        assert sum(passed) > 50

    async def test_all_keys_expire(self, redis: RedisServer) -> None:
        async with opened(remote(redis)) as store:
            for rate in (Rate(2, 1), Rate(2, 60)):
                await admitted(store, f"{rate}", 5, rate)

            keys = await redis.ask("KEYS", "*")
            lives = [await redis.ask("PTTL", key) for key in keys]

        assert len(keys) >= 2
        # -1 is a key without expiry; -2 is one that has just expired.
        assert all(life > 0 or life == -2 for life in lives)

    async def test_concurrent_hits_are_batched(self, redis: RedisServer) -> None:
        async def trips() -> int:
            return int((await redis.ask("INFO", "stats"))["total_reads_processed"])

        async with opened(remote(redis)) as store:
            before = await trips()
            alone = [await store.hit(HOURLY, "ada") for _ in range(20)]
            between = await trips()
            together = await admitted(store, "bob", 200, Rate(100, 3600))
            after = await trips()

        assert (len(alone), together) == (20, 100)
        # One for each hit, and a few for the INFO commands.
        assert 20 <= between - before <= 30
        assert after - between <= 30

    async def test_cancelled_hits_cost_no_connection(self, redis: RedisServer) -> None:
        async with opened(remote(redis)) as store:
            connections = (await redis.ask("INFO", "stats"))["total_connections_received"]
            for _ in range(20):
                hits = [asyncio.create_task(store.hit(HOURLY, "ada")) for _ in range(10)]
                await asyncio.sleep(0)
                for hit in hits[::2]:
                    hit.cancel()
                await asyncio.gather(*hits[1::2])
            right = await store.hit(HOURLY, "bob")
            later = (await redis.ask("INFO", "stats"))["total_connections_received"]

        assert right.remaining == 4
        # The connection of the INFO command.
        assert later - connections <= 1

    async def test_flushed_script_is_sent_again(self, redis: RedisServer) -> None:
        async with opened(remote(redis)) as store:
            await store.hit(HOURLY, "ada")
            await redis.ask("SCRIPT", "FLUSH")

            counts = await asyncio.gather(*(store.hit(HOURLY, "ada") for _ in range(2)))

        assert [each.remaining for each in counts] == [3, 2]

    async def test_hits_fail_while_redis_hangs(self, redis: RedisServer) -> None:
        async with opened(remote(redis, timeout_seconds=0.05)) as store:
            redis.hang()

            outcomes = await asyncio.gather(
                *(store.hit(HOURLY, "ada") for _ in range(50)), return_exceptions=True
            )

        assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}

    async def test_queued_hit_fails_with_the_batch_in_flight(self, redis: RedisServer) -> None:
        store = remote(redis, timeout_seconds=2)
        async with opened(store):
            redis.hang()
            first = asyncio.create_task(store.hit(HOURLY, "ada"))
            await until(lambda: store._sender is not None and not store._waiting)
            second = asyncio.create_task(store.hit(HOURLY, "ada"))

            await asyncio.wait([first])
            await asyncio.wait([second], timeout=1)

            assert second.done()
            assert isinstance(second.exception(), StoreUnavailable)

    async def test_late_reply_is_accepted_when_the_event_loop_is_busy(
        self, redis: RedisServer
    ) -> None:
        async def keep_busy() -> None:
            while True:
                # Each iteration of the event loop takes most of the store's time-out.
                time.sleep(0.6)
                await asyncio.sleep(0)

        async with opened(remote(redis, timeout_seconds=1)) as store:
            busy = asyncio.create_task(keep_busy())
            count = await store.hit(HOURLY, "ada")
            busy.cancel()

        assert count.admitted
