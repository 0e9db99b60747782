"""Concurrent writes of single products, from two processes: none is lost, and none done twice."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from sqlalchemy import BindParameter, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.models import User
from catalog.db.database import Database
from catalog.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    NotFound,
    PreconditionFailed,
)
from catalog.products import queries
from catalog.products.changes import change_counter
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.log_reader import read_changes
from catalog.products.listing.page_cache import PageCache
from catalog.products.models import NewProduct, Product
from catalog.products.writes import BatchedWrites, Delete, Update, WriteResult
from catalog.settings import Settings
from tests.db.support import on_servers, run_on
from tests.numbers import Change
from tests.products.changes.support import content_of
from tests.support import Caller

ADA = 1
PRODUCTS = 3
CLIENTS = 24
EDITS = 12


@pytest.fixture
async def queues(database: Database, settings: Settings) -> AsyncIterator[list[BatchedWrites]]:
    """Return the queues of two processes on the same database."""

    async def sign_up(session: AsyncSession) -> None:
        texts = dict.fromkeys(("username", "username_key", "email", "email_key"), "ada")
        session.add(User(id=ADA, password_hash="", **texts))

    await database.transaction(sign_up)
    async with AsyncExitStack() as stack:
        queues = []
        for _ in range(2):
            own = Database(settings)
            stack.push_async_callback(own.close)
            queues.append(BatchedWrites(own, PageCache(own)))
            stack.push_async_callback(queues[-1].close)
        yield queues


def lamp(name: str = "Lamp") -> NewProduct:
    return NewProduct(name, None, 0.0, ADA)


class Editors:
    """Clients that increment the prices of the same few products, each only as it last saw it.

    Attributes:
        done: the acknowledged updates.
    """

    def __init__(self, queues: list[BatchedWrites]) -> None:
        self.done: list[WriteResult] = []
        self.refused = 0
        self._queues = queues
        self._chance = random.Random(17)  # noqa: S311 (must be repeatable)

    async def run(self) -> list[WriteResult]:
        """Create the products, and edit them until each client has done its edits."""
        made = [await self._queues[0].create(lamp(f"Lamp {n}"), None) for n in range(PRODUCTS)]
        clients = (self._edit(number, [each.product for each in made]) for number in range(CLIENTS))
        await asyncio.gather(*clients)
        return made

    async def _edit(self, number: int, products: list[dict[str, Any]]) -> None:
        known = {product["id"]: product for product in products}
        for _ in range(EDITS):
            product = known[self._chance.choice(list(known))]
            values = {"price": product["price"] + 1}
            version = product["version"]

            def precondition(current: dict[str, Any], version: int = version) -> bool:
                return bool(current["version"] == version)

            edit = Update(product["id"], ADA, values, precondition)
            try:
                result = await self._queues[number % len(self._queues)].edit(edit)
            except PreconditionFailed as refusal:
                self.refused += 1
                known[product["id"]] = cast("dict[str, Any]", refusal.members["current"])
            else:
                self.done.append(result)
                known[product["id"]] = result.product


def versions_of(done: list[WriteResult]) -> dict[int, list[int]]:
    """Return the acknowledged versions of each product, in the order of their positions."""
    versions: dict[int, list[int]] = defaultdict(list)
    for result in sorted(done, key=lambda result: result.change.position):
        versions[result.product["id"]].append(result.product["version"])
    return versions


def is_serial(done: list[WriteResult]) -> bool:
    """Tell whether each update was made to the outcome of the one before it."""
    return all(
        versions == [*range(2, len(versions) + 2)] for versions in versions_of(done).values()
    )


class TestIdempotencyKeys:
    async def test_idempotent_create_is_distinguished_from_other_and_pending_ones(
        self, queues: list[BatchedWrites], anyone: Caller
    ) -> None:
        queue, change = queues[0], await Change.since_now(anyone)

        creating = asyncio.create_task(queue.create(lamp(), "a"))
        # The task runs until it waits for its batch.
        await asyncio.sleep(0)
        with pytest.raises(IdempotencyKeyInUse):
            await queue.create(lamp(), "a")
        first = await creating
        repeated = await queue.create(lamp(), "a")
        with pytest.raises(IdempotencyKeyReused):
            await queue.create(lamp("Desk"), "a")
        without = await queue.create(lamp(), None)

        assert (first.replayed, repeated.replayed, without.replayed) == (False, True, False)
        assert repeated.product == first.product != without.product
        results = ("first", "conflict", "replayed", "mismatch")
        counts = [await change.of("idempotency_total", result=each) for each in results]
        assert counts == [1, 1, 1, 1]


class TestLongProducts:
    async def test_short_edits_of_long_products_share_small_batches(
        self, queues: list[BatchedWrites], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limit, count = 5000, 20
        monkeypatch.setattr("catalog.products.writes.batch.MAX_REINDEXED_BYTES", limit)
        queue = queues[0]
        new_products = [NewProduct("Lamp", "ä" * 500, 1.0, ADA) for _ in range(count)]
        made = [(await queue.create(each, None)).product["id"] for each in new_products]
        edits = [Update(product_id, ADA, {"name": "Desk"}) for product_id in made]

        changed = await asyncio.gather(*(queue.edit(each) for each in edits))
        deleted = await asyncio.gather(*(queue.edit(Delete(each, ADA)) for each in made))

        for done in (changed, deleted):
            # The writes of a batch share its last position.
            batches = Counter(each.batch_position for each in done)
            assert sum(batches.values()) == count
            assert max(batches.values()) <= limit // 1004

    async def test_edits_that_were_put_off_hold_up_no_other_write(
        self, queues: list[BatchedWrites], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.products.writes.batch.MAX_REINDEXED_BYTES", 1)
        count = 20
        queue = queues[0]
        made = [(await queue.create(lamp(), None)).product["id"] for _ in range(count)]
        edits = [
            asyncio.create_task(queue.edit(Update(product_id, ADA, {"name": "Desk"})))
            for product_id in made
        ]
        await asyncio.wait(edits, return_when=asyncio.FIRST_COMPLETED)

        created = await queue.create(lamp(), None)

        changed = await asyncio.gather(*edits)
        later = [each for each in changed if each.change.position > created.change.position]
        assert len(later) > count // 2


class TestConcurrentEdits:
    async def test_each_acknowledged_update_was_made_to_the_one_before(
        self, database: Database, queues: list[BatchedWrites]
    ) -> None:
        editors = Editors(queues)

        made = await editors.run()

        assert len(editors.done) + editors.refused == CLIENTS * EDITS
        assert editors.refused > 0
        assert is_serial(editors.done)
        # Every acknowledged write has the position at which the log has it, and there are no gaps.
        everything = sorted([*made, *editors.done], key=lambda each: each.change.position)
        assert [each.change.position for each in everything] == [*range(1, len(everything) + 1)]
        logged = await run_on(database.connection(), read_changes, since=ChangeId(0), limit=1000)
        changes = content_of(logged)
        assert [(each["id"], each["version"]) for each in changes] == [
            (each.product["id"], each.product["version"]) for each in everything
        ]
        assert [entry.change for entry in logged.entries] == [each.change for each in everything]
        # The last one is stored: no later write went lost or came without an acknowledgement.
        for number, versions in versions_of(editors.done).items():
            shown = next(each for each in changes[::-1] if each["id"] == number)["product"]
            assert (shown["version"], shown["price"]) == (versions[-1], len(versions))

    @on_servers
    async def test_control_updates_are_lost_without_locks(
        self, queues: list[BatchedWrites], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids: BindParameter[int] = bindparam("product_ids", expanding=True)
        naive = select(*queries.COLUMNS).where(Product.id.in_(ids))
        monkeypatch.setattr(queries, "LOCK_SKIPPING", naive)
        editors = Editors(queues)

        await editors.run()

        assert not is_serial(editors.done)

    async def test_concurrent_deletes_of_a_product_succeed_exactly_once(
        self, queues: list[BatchedWrites]
    ) -> None:
        for _ in range(5):
            product_id = (await queues[0].create(lamp(), None)).product["id"]

            deletes = [queues[n % 2].edit(Delete(product_id, ADA)) for n in range(8)]
            outcomes = await asyncio.gather(*deletes, return_exceptions=True)

            refused = [each for each in outcomes if isinstance(each, BaseException)]
            assert [type(each) for each in refused] == [NotFound] * 7

    async def test_keyed_creates_among_edits_are_done_once(
        self, database: Database, queues: list[BatchedWrites]
    ) -> None:
        product_id = (await queues[0].create(lamp(), None)).product["id"]

        async def repeat(key: str, queue: BatchedWrites) -> int:
            created = await queue.create(lamp(key), key)
            again = await queue.create(lamp(key), key)
            assert (again.replayed, again.change) == (True, created.change)
            assert again.product == created.product
            return created.change.position

        edits = [
            queues[n % 2].edit(Update(product_id, ADA, {"price": float(n + 1)})) for n in range(20)
        ]
        creates = [repeat(f"key {n}", queues[n % 2]) for n in range(20)]
        positions, results = await asyncio.gather(asyncio.gather(*creates), asyncio.gather(*edits))

        taken = [*positions, *(result.change.position for result in results)]
        assert sorted(taken) == [*range(2, 42)]
        head = await run_on(database.connection(), change_counter.current_change)
        assert head.position == 41


class TestLockedProduct:
    @on_servers
    async def test_edit_waits_for_a_lock_while_other_writes_are_done(
        self, database: Database, queues: list[BatchedWrites]
    ) -> None:
        queue = queues[0]
        locked, free = [(await queue.create(lamp(), None)).product["id"] for _ in range(2)]
        is_locked, may_end = asyncio.Event(), asyncio.Event()

        async def lock(session: AsyncSession) -> None:
            connection = await session.connection()
            await connection.execute(queries.LOCK_WAITING, {"product_ids": [locked]})
            is_locked.set()
            await may_end.wait()

        holding = asyncio.create_task(database.transaction(lock))
        await is_locked.wait()
        late = asyncio.create_task(queue.edit(Update(locked, ADA, {"price": 5.0})))
        for price in range(1, 4):
            await queue.edit(Update(free, ADA, {"price": float(price)}))
            await queue.create(lamp(), None)
        was_done = late.done()
        may_end.set()
        await holding

        assert not was_done
        assert (await late).product["price"] == 5.0


class TestPositionMetric:
    async def test_position_of_each_commit_is_observed_once(
        self, queues: list[BatchedWrites], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        observed: list[int] = []
        monkeypatch.setattr("catalog.products.writes.queue.observe_position", observed.append)

        created = await asyncio.gather(*(queues[0].create(lamp(), None) for _ in range(8)))
        lamp_id = created[0].product["id"]
        updated = await queues[0].edit(Update(lamp_id, ADA, {"price": 5.0}))
        deleted = await queues[0].edit(Delete(lamp_id, ADA))

        last = [each.batch_position for each in (*created, updated, deleted)]
        assert observed == list(dict.fromkeys(last))
