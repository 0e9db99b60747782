"""Store in a Redis or Valkey that all instances share."""

import asyncio
from collections.abc import Awaitable, Sequence
from contextvars import Context
from hashlib import sha1
from typing import Any, TypeVar

from limits.aio.storage.redis.bridge import RedisBridge
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from catalog.http.limit_store.base import Count, StoreUnavailable
from catalog.observability.logs import logger
from catalog.settings import Rate

T = TypeVar("T")

TIMEOUT_SECONDS = 0.05
"""Time-out of a request's call to the shared store."""

CONNECT_SECONDS = 1.0
"""Time-out of connecting and probing; no request waits for it."""

_log = logger(__name__)

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
        timeout_seconds: time-out of a round trip.
    """

    def __init__(self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._client: Redis | None = None
        self._waiting: list[_Hit] = []
        self._sender: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, with the longer time-out, and count a probe within the time-out of requests.

        Raises:
            StoreUnavailable: either failed or timed out.
        """
        try:
            await _within(CONNECT_SECONDS, self._connected().ping())
            await _within(self._timeout_seconds, self._count([_PROBE]))
        except _FAILURES as error:
            await self._disconnect()
            raise StoreUnavailable(_reason(error)) from error

    async def hit(self, rate: Rate, key: str) -> Count:
        """Count a request, unless it is beyond the limit.

        Raises:
            StoreUnavailable: the store failed; the request may have been counted or not.
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
                counts = await _within(
                    self._timeout_seconds, self._count([hit[:2] for hit in batch])
                )
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
                future.set_exception(StoreUnavailable(reason))
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
        """Disconnect; pending hits fail with ``StoreUnavailable``."""
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
