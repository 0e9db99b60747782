"""Circuit breaker around the shared store, with the local one as its fallback."""

import asyncio
import time
from contextvars import Context

from catalog.http.limit_store.base import Count, LimitStore, StoreUnavailable
from catalog.http.limit_store.memory import MemoryStore
from catalog.observability.logs import logger
from catalog.settings import Rate

PROBE_INTERVAL_SECONDS = 2.0
"""Interval between probes of an unavailable store."""

_log = logger(__name__)


class CircuitBreaker:
    """Circuit breaker: uses the shared store, and falls back to the local one while it fails.

    The first failure opens the breaker, and from then on no request waits for the shared store. A
    task probes it at intervals, and closes the breaker when it has recovered. Counts are not
    carried over, either way.
    """

    def __init__(
        self,
        shared: LimitStore,
        local: MemoryStore,
        *,
        probe_interval_seconds: float = PROBE_INTERVAL_SECONDS,
    ) -> None:
        self._shared = shared
        self._local = local
        self._probe_interval_seconds = probe_interval_seconds
        self._probe: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; an unavailable store does not keep the service from starting."""
        try:
            await self._shared.open()
        except StoreUnavailable as error:
            self._trip(error)

    async def hit(self, rate: Rate, key: str) -> Count:
        """Count a request, unless it is beyond the limit."""
        if self._probe is None:
            try:
                return await self._shared.hit(rate, key)
            except StoreUnavailable as error:
                self._trip(error)
        return await self._local.hit(rate, key)

    def _trip(self, error: StoreUnavailable) -> None:
        if self._probe is None:
            _log.warning("rate_limit_store_unavailable", reason=str(error))
            loop = asyncio.get_running_loop()
            self._probe = loop.create_task(self._probe_until_recovered(), context=Context())

    async def _probe_until_recovered(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(self._probe_interval_seconds)
            try:
                await self._shared.open()
            except StoreUnavailable:
                continue
            _log.info("rate_limit_store_recovered", away_seconds=round(time.monotonic() - began, 1))
            self._probe = None
            return

    async def close(self) -> None:
        """Disconnect."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})
        await self._shared.close()
