"""Rate limit stores: exact counts, bounded memory, and operation without Redis."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import floor

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from structlog.testing import capture_logs
from structlog.typing import EventDict

from catalog.http.limit_store import (
    MAX_COUNTERS,
    CircuitBreaker,
    Count,
    LimitStore,
    MemoryStore,
    StoreUnavailable,
    create_store,
)
from catalog.http.limit_store.redis import RedisStore
from catalog.settings import Rate, Settings
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


@asynccontextmanager
async def steady(url: str, *, timeout_seconds: float = PATIENT) -> AsyncIterator[LimitStore]:
    """Yield a store with a circuit breaker that probes its Redis every 50 ms."""
    store = CircuitBreaker(
        RedisStore(url, timeout_seconds=timeout_seconds), MemoryStore(), probe_seconds=0.05
    )
    async with opened(store):
        yield store


@pytest.fixture
def local() -> LimitStore:
    """Return a store in this process."""
    return MemoryStore()


@pytest.fixture
async def shared(redis: RedisServer) -> AsyncIterator[LimitStore]:
    """Yield a store that instances can share."""
    async with opened(remote(redis)) as store:
        yield store


@pytest.fixture(params=["local", "shared"])
def store(request: pytest.FixtureRequest) -> LimitStore:
    """Return each kind of store, empty."""
    store: LimitStore = request.getfixturevalue(request.param)
    return store


async def admitted(store: LimitStore, key: str, count: int, rate: Rate = HOURLY) -> int:
    """Return how many of ``count`` concurrent requests are admitted."""
    counts = await asyncio.gather(*(store.hit(rate, key) for _ in range(count)))
    return sum(each.admitted for each in counts)


def weight(previous: int, previous_ttl: float, current: int, rate: Rate) -> int:
    """Return how many requests a window holds, interpolated as in ``limits``."""
    return floor(previous * previous_ttl / rate.seconds) + current


class TestCount:
    def test_previous_window_is_weighted_by_its_remaining_time(self) -> None:
        count = Count.of(
            Rate(10, 60), admitted=True, previous=8, previous_ttl=30, current=3, current_ttl=90
        )

        # 8 * 30/60 + 3 = 7. The next of the eight leaves the sliding window right now.
        assert (count.remaining, count.reset_seconds) == (3, 1)

    def test_reset_is_at_the_next_window_if_the_previous_was_empty(self) -> None:
        count = Count.of(
            Rate(10, 60), admitted=True, previous=0, previous_ttl=0, current=1, current_ttl=101.5
        )

        assert (count.remaining, count.reset_seconds) == (9, 42)

    @given(
        limit=st.integers(1, 10_000),
        seconds=st.sampled_from([1, 60, 3600, 86400]),
        used=st.floats(0, 1),
        elapsed=st.floats(0, 0.999),
    )
    def test_request_is_admitted_after_the_reset(
        self, limit: int, seconds: int, used: float, elapsed: float
    ) -> None:
        rate = Rate(limit, seconds)
        previous, left = round(limit * used), seconds * (1 - elapsed)
        current = limit - weight(previous, left, 0, rate)

        count = Count.of(
            rate,
            admitted=False,
            previous=previous,
            previous_ttl=left,
            current=current,
            current_ttl=left + seconds,
        )

        assert count.remaining == 0
        # A request takes a moment to arrive, and windows are half open.
        later = count.reset_seconds + 0.001
        if later < left:
            held = weight(previous, left - later, current, rate)
        else:
            held = weight(current, max(0, seconds - (later - left)), 0, rate)
        assert held < limit


class TestEachStore:
    async def test_store_admits_exactly_the_limit(self, store: LimitStore) -> None:
        counts = [await store.hit(HOURLY, "ada") for _ in range(8)]

        assert [each.admitted for each in counts] == [True] * 5 + [False] * 3
        assert [each.remaining for each in counts] == [4, 3, 2, 1, 0, 0, 0, 0]
        assert all(1 <= each.reset_seconds <= 3600 for each in counts)

    async def test_concurrent_hits_are_admitted_exactly_up_to_the_limit(
        self, store: LimitStore
    ) -> None:
        assert await admitted(store, "ada", 200, Rate(50, 3600)) == 50

    async def test_keys_are_counted_separately(self, store: LimitStore) -> None:
        await admitted(store, "ada", 10)

        assert await admitted(store, "bob", 10) == 5

    async def test_rejected_hits_are_not_counted(self, store: LimitStore) -> None:
        # Long enough for a hundred hits on a busy machine.
        rate = Rate(3, 3)
        while (count := await store.hit(rate, "ada")).admitted:
            pass

        await admitted(store, "ada", 100, rate)
        await asyncio.sleep(count.reset_seconds + 0.05)

        assert (await store.hit(rate, "ada")).admitted


class TestMemoryStore:
    async def test_number_of_counters_is_bounded(self) -> None:
        store = MemoryStore(max_counters=1000)

        for number in range(3000):
            await store.hit(HOURLY, f"client {number}")

        assert len(store) == 1000

    async def test_least_recently_counted_key_is_evicted(self) -> None:
        store = MemoryStore(max_counters=10)
        for key in ("ada", "bob"):
            await admitted(store, key, 10)

        for number in range(9):
            await store.hit(HOURLY, f"client {number}")

        assert await admitted(store, "bob", 1) == 0
        assert await admitted(store, "ada", 1) == 1

    async def test_hit_takes_constant_time(self) -> None:
        async def median(store: MemoryStore) -> float:
            times = []
            for _ in range(300):
                began = time.perf_counter()
                await store.hit(Rate(1_000_000, 3600), "ada")
                times.append(time.perf_counter() - began)
            return statistics.median(times)

        full = MemoryStore()
        for number in range(20_000):
            await full.hit(HOURLY, f"client {number}")

        # The library's own storage iterates over all counters and takes some 200 times as long.
        assert await median(full) < 10 * await median(MemoryStore())

    def test_default_bound_is_at_most_100000_counters(self) -> None:
        assert MAX_COUNTERS <= 100_000


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


class TestRedisStore:
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
        async with opened(remote(redis, timeout_seconds=2)) as store:
            redis.hang()
            first = asyncio.create_task(store.hit(HOURLY, "ada"))
            await asyncio.sleep(0.1)
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


# Faults of a store: each puts the running Redis into that state and returns a URL.


async def refuses_connections(redis: RedisServer) -> str:
    redis.kill()
    return redis.url


async def hangs(redis: RedisServer) -> str:
    redis.hang()
    return redis.url


async def has_no_address(redis: RedisServer) -> str:  # noqa: ARG001 (one signature for all)
    return "redis://nowhere.invalid:6379/0"


async def has_an_address_that_is_none(redis: RedisServer) -> str:  # noqa: ARG001 (one signature for all)
    return f"redis://{'x' * 70}.invalid:6379/0"


async def refuses_the_password(redis: RedisServer) -> str:
    await redis.ask("CONFIG", "SET", "requirepass", "right")
    return redis.url.replace("redis://", "redis://:Geheim@")


async def refuses_to_write(redis: RedisServer) -> str:
    await redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    return redis.url


AWAY = (
    refuses_connections,
    hangs,
    has_no_address,
    has_an_address_that_is_none,
    refuses_the_password,
    refuses_to_write,
)


async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reply with a protocol that is not Redis's."""
    await reader.read(10)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    writer.close()


each_loop = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


async def on(
    new_loop: Callable[[], asyncio.AbstractEventLoop], scenario: Callable[[], Awaitable[None]]
) -> None:
    """Run a scenario on an event loop of its own."""

    async def play() -> None:
        await scenario()

    def run() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(play())

    await asyncio.to_thread(run)


async def until(condition: Callable[[], bool], *, within: float = 30.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


def about_limits(logs: list[EventDict]) -> list[EventDict]:
    """Select the events about limits; tasks of other apps in this process log too."""
    return [log for log in logs if log["event"].startswith("rate_limit_store_")]


def events_of(logs: list[EventDict]) -> list[str]:
    return [log["event"] for log in about_limits(logs)]


class TestCircuitBreaker:
    @pytest.mark.parametrize("case", AWAY, ids=lambda case: case.__name__)
    async def test_local_limits_apply_while_the_store(
        self, redis: RedisServer, case: Callable[[RedisServer], Awaitable[str]]
    ) -> None:
        url = await case(redis)

        with capture_logs() as logs:
            await self._outlast(url)

        assert events_of(logs) == ["rate_limit_store_unavailable"]
        assert about_limits(logs)[0]["log_level"] == "warning"
        assert "Geheim" not in about_limits(logs)[0]["reason"]

    async def test_local_limits_apply_while_the_store_speaks_another_protocol(self) -> None:
        async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]

            with capture_logs() as logs:
                await self._outlast(f"redis://127.0.0.1:{port}/0")

        assert events_of(logs) == ["rate_limit_store_unavailable"]

    async def test_local_limits_apply_after_the_store_begins_to_refuse_writes(
        self, redis: RedisServer
    ) -> None:
        with capture_logs() as logs:
            async with steady(redis.url) as store:
                await redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
                await store.hit(HOURLY, "ada")
                await asyncio.sleep(0.3)

        assert events_of(logs) == ["rate_limit_store_unavailable"]

    async def _outlast(self, url: str) -> None:
        async with steady(url, timeout_seconds=0.05) as store:
            passed = await admitted(store, "ada", 20)
            # Long enough for several probes, all with the same result.
            await asyncio.sleep(0.3)
            passed += await admitted(store, "ada", 20)
        assert passed == 5

    @each_loop
    async def test_outage_of_a_killed_store_is_logged_once_until_it_recovers(
        self, redis: RedisServer, new_loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        async def scenario() -> None:
            with capture_logs() as logs:
                async with steady(redis.url) as store:
                    shared = [await admitted(store, "ada", 3) for _ in range(2)]
                    redis.kill()
                    alone = [await admitted(store, "ada", 20) for _ in range(3)]
                    await redis.start()
                    await until(lambda: "rate_limit_store_recovered" in events_of(logs))
                    again = [await admitted(store, "ada", 20) for _ in range(2)]
                    keys = await redis.ask("KEYS", "*ada*")

            assert shared == [3, 2]
            assert alone == [5, 0, 0]
            # The killed server saved nothing.
            assert again == [5, 0]
            assert keys
            assert events_of(logs) == ["rate_limit_store_unavailable", "rate_limit_store_recovered"]

        await on(new_loop, scenario)

    @each_loop
    async def test_hanging_store_delays_one_batch_only(
        self, redis: RedisServer, new_loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        async def scenario() -> None:
            with capture_logs() as logs:
                async with steady(redis.url, timeout_seconds=1) as store:
                    await store.hit(HOURLY, "ada")
                    redis.hang()
                    alone = await admitted(store, "bob", 100)
                    waits = []
                    for _ in range(200):
                        began = time.perf_counter()
                        await store.hit(HOURLY, "bob")
                        waits.append(time.perf_counter() - began)
                    redis.go_on()
                    await until(lambda: "rate_limit_store_recovered" in events_of(logs))
                    again = await store.hit(HOURLY, "ada")

            assert alone == 5
            # A hundred times what a hit takes, and a tenth of the default time-out.
            assert statistics.median(waits) < 0.005
            assert again.remaining == 3
            assert events_of(logs) == ["rate_limit_store_unavailable", "rate_limit_store_recovered"]

        await on(new_loop, scenario)

    async def test_store_that_starts_later_is_found(self, redis: RedisServer) -> None:
        redis.kill()

        with capture_logs() as logs:
            async with steady(redis.url) as store:
                alone = await admitted(store, "ada", 20)
                await redis.start()
                await until(lambda: "rate_limit_store_recovered" in events_of(logs))
                await store.hit(HOURLY, "ada")
                keys = await redis.ask("KEYS", "*ada*")

        assert alone == 5
        assert keys

    async def test_hanging_store_does_not_delay_close(self, redis: RedisServer) -> None:
        async with steady(redis.url) as store:
            redis.hang()
            hit = asyncio.create_task(store.hit(HOURLY, "ada"))
            await asyncio.sleep(0.05)

            async with asyncio.timeout(30):
                await store.close()
                count = await hit

        assert count.admitted


class TestCreateStore:
    async def test_url_selects_the_shared_store(self, redis: RedisServer) -> None:
        url = Settings(limits_url=redis.url.replace("redis:", "valkey:")).limits_url  # type: ignore[arg-type]  # parsed

        async with opened(create_store(url)) as store:
            await store.hit(HOURLY, "ada")
            keys = await redis.ask("KEYS", "*ada*")

        assert keys

    def test_local_store_is_the_default(self) -> None:
        assert isinstance(create_store(None), MemoryStore)
