"""Promises of every kind of store."""

import asyncio

from catalog.http.limit_store import LimitStore
from catalog.settings import Rate
from tests.http.limit_store.stores import HOURLY, admitted


class EveryStore:
    """Tests for a class whose module has a fixture ``store``: a store of its kind, empty."""

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
