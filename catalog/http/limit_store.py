"""Stores of the rate limiter: this process's memory, or a Redis that all instances share.

The algorithm is the sliding window counter of ``limits``: two numbers for each client. Its moving
window is exact, whereas the counter interpolates, but it stores the times of all requests, 6,000
of them for a busy client.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from contextvars import Context
from dataclasses import dataclass
from hashlib import sha1
from math import ceil, floor
from typing import Any, Protocol, TypeVar

from limits.aio.storage import MemoryStorage
from limits.aio.storage.redis.bridge import RedisBridge
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from catalog.observability.logs import logger
from catalog.settings import Rate

T = TypeVar("T")

MAX_COUNTERS = 100_000
"""Counters in a process, two for each client and policy: some 40 MB at the maximum."""

PATIENCE_SECONDS = 0.05
"""Time-out of a request's call to the shared store."""

CONNECT_SECONDS = 1.0
"""Time-out of connecting and probing; no request waits for it."""

PROBE_INTERVAL_SECONDS = 2.0
"""Interval between probes of an unavailable store."""

_log = logger(__name__)


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


class StoreAway(Exception):
    """The shared store is unreachable, rejects the connection, or times out."""


class LimitStore(Protocol):
    """A counter of requests for rate limits."""

    async def open(self) -> None:
        """Prepare the store, before the first request."""

    async def hit(self, rate: Rate, key: str) -> Count:
        """Count a request, unless it is beyond the limit."""

    async def close(self) -> None:
        """Close every connection and end every task."""


class LocalStore:
    """Store in this process's memory, bounded in size.

    Beyond ``max_counters`` the least recently incremented counter is evicted. A client with that
    many addresses has as many times the limit anyway, and gains nothing by eviction.
    """

    def __init__(self, max_counters: int = MAX_COUNTERS) -> None:
        self._storage = _BoundedMemory(max_counters)

    def __len__(self) -> int:
        """Return the number of counters."""
        return len(self._storage.counters)

    async def open(self) -> None:
        """Nothing to do."""

    async def hit(self, rate: Rate, key: str) -> Count:
        """Count a request, unless it is beyond the limit."""
        # Nothing in here suspends, so no other request can interleave.
        admitted = await self._storage.acquire_sliding_window_entry(
            key, rate.requests, rate.seconds
        )
        window = await self._storage.get_sliding_window(key, rate.seconds)
        previous, previous_ttl, current, current_ttl = window
        return Count.of(
            rate,
            admitted=admitted,
            previous=previous,
            previous_ttl=previous_ttl,
            current=current,
            current_ttl=current_ttl,
        )

    async def close(self) -> None:
        """Nothing to do."""


class _BoundedMemory(MemoryStorage):
    """The library's algorithm on bounded storage.

    The library's own storage is unbounded, and scans all counters on every hit: 14 ms at 100,000.
    """

    def __init__(self, max_counters: int) -> None:
        super().__init__()
        self._max_counters = max_counters
        # By key, least recently incremented first: count and expiry.
        self.counters: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def get(self, key: str) -> int:
        """Return a counter's value; 0 once it has expired."""
        count, expires = self.counters.get(key, (0, 0.0))
        return count if time.time() < expires else 0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Increment a counter, from 0 once it has expired, and return its value."""
        now = time.time()
        count, expires = self.counters.pop(key, (0, 0.0))
        if now >= expires:
            count, expires = 0, now + expiry
        self.counters[key] = (count + amount, expires)
        if len(self.counters) > self._max_counters:
            self.counters.popitem(last=False)
        return count + amount

    async def decr(self, key: str, amount: int = 1) -> int:
        """Decrement a counter and return its value."""
        return await self.incr(key, 0, -amount)


# The library's two scripts as one, for one round trip instead of two: count, then read the windows.
_SCRIPT = b"""
local function acquire(KEYS, ARGV)
%b
end
local function window(KEYS, ARGV)
%b
end
local acquired = acquire(KEYS, ARGV)
local counts = window(KEYS, {ARGV[2]})
return {acquired and 1 or 0, counts[1], counts[2], counts[3], counts[4]}
""" % (RedisBridge.SCRIPT_ACQUIRE_SLIDING_WINDOW, RedisBridge.SCRIPT_SLIDING_WINDOW)

# Not for security: Redis names scripts by their SHA-1.
_SCRIPT_NAME = sha1(_SCRIPT, usedforsecurity=False).hexdigest()

_KEY_PREFIX = "catalog-limits"
# Always admitted, so that the probe writes: a read-only store is of no use.
_PROBE = (Rate(1_000_000, 1), "probe")

_FAILURES = (RedisError, OSError, TimeoutError)

_Hit = tuple[Rate, str, asyncio.Future[Count]]

# Extra turns of the event loop for a reply that may have arrived while the loop was busy.
_GRACE_TURNS = 5


class RedisStore:
    """Store in Redis or Valkey, over one connection.

    Concurrent requests share one round trip. A task of its own uses the connection, so that a
    request that is cancelled by a disconnect does not cost it.

    Args:
        url: ``redis://`` or ``rediss://``, with credentials.
        patience: time-out of a round trip in seconds.
    """

    def __init__(self, url: str, *, patience: float = PATIENCE_SECONDS) -> None:
        self._url = url
        self._patience = patience
        self._client: Redis | None = None
        self._waiting: list[_Hit] = []
        self._sender: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, with the longer time-out, and count a probe within the time-out of requests.

        Raises:
            StoreAway: either failed or timed out.
        """
        try:
            await _within(CONNECT_SECONDS, self._connected().ping())
            await _within(self._patience, self._count([_PROBE]))
        except _FAILURES as error:
            await self._disconnect()
            raise StoreAway(_reason(error)) from error

    async def hit(self, rate: Rate, key: str) -> Count:
        """Count a request, unless it is beyond the limit.

        Raises:
            StoreAway: the store failed; the request may have been counted or not.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Count] = loop.create_future()
        self._waiting.append((rate, key, future))
        if self._sender is None:
            # Runs in an empty context: the work is shared by many requests.
            self._sender = loop.create_task(self._send(), context=Context())
        return await future

    async def _send(self) -> None:
        """Send the queued hits in batches until the queue is empty."""
        batch: list[_Hit] = []
        reason = "closed"
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                counts = await _within(self._patience, self._count([hit[:2] for hit in batch]))
                for (_, _, future), count in zip(batch, counts, strict=True):
                    if not future.done():
                        future.set_result(count)
        except _FAILURES as error:
            reason = _reason(error)
            self._refuse(batch, reason)
            await self._disconnect()
        finally:
            # No waiter is left behind, whatever ended the task.
            self._sender = None
            self._refuse(batch, reason)

    def _refuse(self, batch: list[_Hit], reason: str) -> None:
        # Hits queued since would time out as well; they fail at once.
        waiting, self._waiting = self._waiting, []
        for _, _, future in batch + waiting:
            if not future.done():
                future.set_exception(StoreAway(reason))
                future.exception()  # Marked as retrieved, in case the waiter is gone.

    async def _count(self, hits: Sequence[tuple[Rate, str]]) -> list[Count]:
        client = self._connected()
        try:
            replies = await self._run(client, hits)
        except NoScriptError:
            # Redis was restarted. Without the script nothing has been counted, so a retry is safe.
            await client.script_load(_SCRIPT)
            replies = await self._run(client, hits)
        return [_count_of(rate, reply) for (rate, _), reply in zip(hits, replies, strict=True)]

    async def _run(self, client: Redis, hits: Sequence[tuple[Rate, str]]) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for rate, key in hits:
            current = f"{_KEY_PREFIX}:{key}"
            arguments = (rate.requests, rate.seconds, 1)
            pipeline.evalsha(_SCRIPT_NAME, 2, f"{current}/-1", current, *arguments)  # type: ignore[unused-awaitable]  # queued
        return await pipeline.execute()

    def _connected(self) -> Redis:
        if self._client is None:
            # RESP2, because RESP3 adds push messages to the connection.
            self._client = Redis.from_url(
                self._url,
                protocol=2,
                socket_connect_timeout=CONNECT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client

    async def _disconnect(self) -> None:
        """Close the connection, which may still deliver the reply to an earlier request."""
        client, self._client = self._client, None
        if client is not None:
            try:
                await _within(CONNECT_SECONDS, client.aclose())
            except _FAILURES as error:
                _log.debug("rate_limit_store_not_closed", reason=_reason(error))

    async def close(self) -> None:
        """Disconnect; pending hits fail with ``StoreAway``."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait({self._sender})
        await self._disconnect()


def _count_of(rate: Rate, reply: Sequence[Any]) -> Count:
    # Times to live are in milliseconds, and negative for an absent counter.
    admitted, previous, previous_ms, current, current_ms = reply
    return Count.of(
        rate,
        admitted=bool(admitted),
        previous=int(previous or 0),
        previous_ttl=max(0, previous_ms) / 1000,
        current=int(current or 0),
        current_ttl=max(0, current_ms) / 1000,
    )


async def _within(seconds: float, work: Awaitable[T]) -> T:
    """Return the result of work, with a time-out that a busy event loop does not trigger.

    Raises:
        TimeoutError: the work took longer, even after a few extra turns of the event loop, in which
            a busy process receives a reply that has arrived in time.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        for _ in range(_GRACE_TURNS):
            if task.done():
                break
            await asyncio.sleep(0)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds * 1000:.0f} ms")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class SteadyStore:
    """Circuit breaker: uses the shared store, and falls back to the local one while it fails.

    The first failure opens the breaker, and from then on no request waits for the shared store. A
    task probes it at intervals, and closes the breaker when it has recovered. Counts are not
    carried over, either way.
    """

    def __init__(
        self,
        shared: RedisStore,
        local: LocalStore,
        *,
        probe_interval: float = PROBE_INTERVAL_SECONDS,
    ) -> None:
        self._shared = shared
        self._local = local
        self._probe_interval = probe_interval
        self._search: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; an unavailable store does not keep the service from starting."""
        try:
            await self._shared.open()
        except StoreAway as error:
            self._break(error)

    async def hit(self, rate: Rate, key: str) -> Count:
        """Count a request, unless it is beyond the limit."""
        if self._search is None:
            try:
                return await self._shared.hit(rate, key)
            except StoreAway as error:
                self._break(error)
        return await self._local.hit(rate, key)

    def _break(self, error: StoreAway) -> None:
        if self._search is None:
            _log.warning("rate_limit_store_unavailable", reason=str(error))
            loop = asyncio.get_running_loop()
            self._search = loop.create_task(self._look_for_it(), context=Context())

    async def _look_for_it(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(self._probe_interval)
            try:
                await self._shared.open()
            except StoreAway:
                continue
            _log.info("rate_limit_store_recovered", away_seconds=round(time.monotonic() - began, 1))
            self._search = None
            return

    async def close(self) -> None:
        """Disconnect."""
        if self._search is not None:
            self._search.cancel()
            await asyncio.wait({self._search})
        await self._shared.close()


def create_store(url: SecretStr | None) -> LimitStore:
    """Return the shared store at a URL; without one, a store in this process's memory."""
    if url is None:
        return LocalStore()
    return SteadyStore(RedisStore(url.get_secret_value()), LocalStore())
