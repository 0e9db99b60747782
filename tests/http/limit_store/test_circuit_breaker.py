"""Circuit breaker: limits apply without Redis, and are shared again when it is back."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from structlog.testing import capture_logs
from structlog.typing import EventDict

from catalog.http.limit_store import CircuitBreaker, LimitStore, MemoryStore, StoreUnavailable
from catalog.http.limit_store.redis import RedisStore
from tests.http.limit_store.stores import HOURLY, PATIENT, admitted, opened
from tests.http.redis_server import RedisServer
from tests.support import until


class CountingStore(RedisStore):
    """Redis store that counts its failed probes."""

    failures = 0

    async def open(self) -> None:
        try:
            await super().open()
        except StoreUnavailable:
            self.failures += 1
            raise


@asynccontextmanager
async def around(shared: RedisStore) -> AsyncIterator[LimitStore]:
    """Yield a store with a circuit breaker that probes the shared one every 50 ms."""
    async with opened(CircuitBreaker(shared, MemoryStore(), probe_interval_seconds=0.05)) as store:
        yield store


@asynccontextmanager
async def steady(url: str, *, timeout_seconds: float = PATIENT) -> AsyncIterator[LimitStore]:
    """Yield a store with a circuit breaker around a Redis."""
    async with around(RedisStore(url, timeout_seconds=timeout_seconds)) as store:
        yield store


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
        shared = CountingStore(redis.url, timeout_seconds=PATIENT)

        with capture_logs() as logs:
            async with around(shared) as store:
                await redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
                await store.hit(HOURLY, "ada")
                await until(lambda: shared.failures >= 2)

        assert events_of(logs) == ["rate_limit_store_unavailable"]

    async def _outlast(self, url: str) -> None:
        shared = CountingStore(url, timeout_seconds=0.05)
        async with around(shared) as store:
            passed = await admitted(store, "ada", 20)
            # The first failure is that of the start.
            await until(lambda: shared.failures >= 2)
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
                    await until(lambda: "rate_limit_store_recovered" in events_of(logs), within=30)
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
                    await until(lambda: "rate_limit_store_recovered" in events_of(logs), within=30)
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
                await until(lambda: "rate_limit_store_recovered" in events_of(logs), within=30)
                await store.hit(HOURLY, "ada")
                keys = await redis.ask("KEYS", "*ada*")

        assert alone == 5
        assert keys

    async def test_hanging_store_does_not_delay_close(self, redis: RedisServer) -> None:
        shared = RedisStore(redis.url, timeout_seconds=PATIENT)
        async with around(shared) as store:
            redis.hang()
            hit = asyncio.create_task(store.hit(HOURLY, "ada"))
            await until(lambda: shared._sender is not None and not shared._waiting)

            async with asyncio.timeout(30):
                await store.close()
                count = await hit

        assert count.admitted
