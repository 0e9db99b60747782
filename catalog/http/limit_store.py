"""Where requests are counted: in this process, or in a Redis that all instances share.

The algorithm is the sliding window counter of ``limits``: two numbers for each client. Its moving
window is exact where this one interpolates, and pays with a list of the times of all requests,
6,000 of them for a busy client.
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
"""Counters that a process keeps, two for each client and policy: some 40 MB when all are taken."""

PATIENCE_SECONDS = 0.05
"""How long a request waits for the shared store."""

CONNECT_SECONDS = 1.0
"""How long a probe may take, for which no request waits."""

PROBE_INTERVAL_SECONDS = 2.0
"""How often a store that is away is looked for."""

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Count:
    """What a limit says to one request.

    Attributes:
        admitted: whether the request is within the limit; one that is not has not been counted.
        remaining: requests that would be admitted now.
        reset_seconds: until there are more of them, whole and at least 1.
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
        """Read the two windows as ``limits`` keeps them; both outlive theirs by one length."""
        weighted = previous * previous_ttl / rate.seconds
        waits = []
        if weighted >= 1:
            # As the window slides on, the weight of the previous one falls request by request.
            waits.append(previous_ttl % (rate.seconds / previous))
        if current:
            waits.append(current_ttl - rate.seconds)
        return cls(
            admitted=admitted,
            remaining=max(0, rate.requests - floor(weighted) - current),
            reset_seconds=max(1, ceil(min(waits, default=0))),
        )


class StoreAway(Exception):
    """The shared store cannot be reached, refuses us, or takes too long."""


class LimitStore(Protocol):
    """Counts requests."""

    async def open(self) -> None:
        """Get ready, before the first request."""

    async def hit(self, rate: Rate, key: str) -> Count:
        """Count a request, unless it is beyond the limit."""

    async def close(self) -> None:
        """Let go of every connection and task."""


class LocalStore:
    """Counts in this process's memory, of which it takes a bounded amount.

    Beyond ``max_counters`` the one that has not been counted up for longest is forgotten. Who has
    so many addresses may have as many times the limit anyway, and gains nothing by it.
    """

    def __init__(self, max_counters: int = MAX_COUNTERS) -> None:
        self._storage = _BoundedMemory(max_counters)

    def __len__(self) -> int:
        """How many counters are kept."""
        return len(self._storage.counters)

    async def open(self) -> None:
        """Nothing to do."""

    async def hit(self, rate: Rate, key: str) -> Count:
        """Count a request, unless it is beyond the limit."""
        # Nothing in here waits, so no other request comes in between.
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
    """The library's algorithm on counters of our own.

    Its own are never too many, and it walks all of them at every hit: 14 ms at 100,000.
    """

    def __init__(self, max_counters: int) -> None:
        super().__init__()
        self._max_counters = max_counters
        # By key, in the order of their last increase: how many, and until when.
        self.counters: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def get(self, key: str) -> int:
        """As the parent."""
        count, expires = self.counters.get(key, (0, 0.0))
        return count if time.time() < expires else 0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """As the parent."""
        now = time.time()
        count, expires = self.counters.pop(key, (0, 0.0))
        if now >= expires:
            count, expires = 0, now + expiry
        self.counters[key] = (count + amount, expires)
        if len(self.counters) > self._max_counters:
            self.counters.popitem(last=False)
        return count + amount

    async def decr(self, key: str, amount: int = 1) -> int:
        """As the parent."""
        return await self.incr(key, 0, -amount)


# The library's two scripts as one, for one trip instead of two: count, then tell how it stands.
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

# Not for secrecy: Redis calls scripts by this.
_SCRIPT_NAME = sha1(_SCRIPT, usedforsecurity=False).hexdigest()

_KEY_PREFIX = "catalog-limits"
# Always admitted, so that it writes: a store that only answers questions is of no use.
_PROBE = (Rate(1_000_000, 1), "probe")

_FAILURES = (RedisError, OSError, TimeoutError)

_Hit = tuple[Rate, str, asyncio.Future[Count]]

# Turns of the event loop that an answer gets which may have arrived while the loop was busy.
_GRACE_TURNS = 5


class RedisStore:
    """Counts in a Redis or Valkey, over one connection.

    Requests that wait together share one trip there and back. The connection is never used by a
    request itself, so that clients who hang up do not cost it.

    Args:
        url: ``redis://`` or ``rediss://``, with credentials.
        patience: seconds that a trip may take.
    """

    def __init__(self, url: str, *, patience: float = PATIENCE_SECONDS) -> None:
        self._url = url
        self._patience = patience
        self._client: Redis | None = None
        self._waiting: list[_Hit] = []
        self._sender: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and do what requests do, with more patience for the first part.

        Raises:
            StoreAway: it did not work, or requests would have to wait for too long.
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
            StoreAway: whether it was counted is not known.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Count] = loop.create_future()
        self._waiting.append((rate, key, future))
        if self._sender is None:
            # It serves many requests, so it has the context of none.
            self._sender = loop.create_task(self._send(), context=Context())
        return await future

    async def _send(self) -> None:
        """Send what is waiting, until nothing is."""
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
            # Nobody is left waiting, whatever it was that ended this.
            self._sender = None
            self._refuse(batch, reason)

    def _refuse(self, batch: list[_Hit], reason: str) -> None:
        # Those who came later need not wait for as long to find out the same.
        waiting, self._waiting = self._waiting, []
        for _, _, future in batch + waiting:
            if not future.done():
                future.set_exception(StoreAway(reason))
                future.exception()  # Seen, should nobody be waiting any more.

    async def _count(self, hits: Sequence[tuple[Rate, str]]) -> list[Count]:
        client = self._connected()
        try:
            replies = await self._run(client, hits)
        except NoScriptError:
            # Redis was restarted. Where the script is missing nothing has been counted.
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
            # The plain protocol, without the notices that the newer one adds to a connection.
            self._client = Redis.from_url(
                self._url,
                protocol=2,
                socket_connect_timeout=CONNECT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client

    async def _disconnect(self) -> None:
        """Give up the connection, which may still bring the answer to an older question."""
        client, self._client = self._client, None
        if client is not None:
            try:
                await _within(CONNECT_SECONDS, client.aclose())
            except _FAILURES as error:
                _log.debug("rate_limit_store_not_closed", reason=_reason(error))

    async def close(self) -> None:
        """Disconnect; who is waiting is told that the store is away."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait({self._sender})
        await self._disconnect()


def _count_of(rate: Rate, reply: Sequence[Any]) -> Count:
    # Milliseconds, and negative for a counter that is not there.
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
    """The result of work that may take so long.

    Raises:
        TimeoutError: it took longer, and not for want of a turn on a busy event loop: then it is
            this process that is slow.
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
    """Counts in the shared store while that answers, and in this process while it does not.

    A circuit breaker: the first failure opens it, and from then on no request waits for the store.
    A task looks for it now and again, and closes the breaker when it is back. Counts are not
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
        """Connect; a store that is away does not keep the service from starting."""
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
    """The store of all instances at a URL; without one, this process's own."""
    if url is None:
        return LocalStore()
    return SteadyStore(RedisStore(url.get_secret_value()), LocalStore())
