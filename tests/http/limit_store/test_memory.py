"""The store in the process: exact counts in bounded memory."""

import statistics
import time

import pytest

from catalog.http.limit_store import MAX_COUNTERS, LimitStore, MemoryStore
from catalog.settings import Rate
from tests.http.limit_store.every_store import EveryStore
from tests.http.limit_store.stores import HOURLY, admitted


@pytest.fixture
def store() -> LimitStore:
    return MemoryStore()


class TestMemoryStore(EveryStore):
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
