"""Batches of writes without HTTP: their decisions and their effects in the database."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.models import Role, User
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.db.read_connection import ReadConnection
from catalog.errors import (
    AccountUnavailable,
    Forbidden,
    IdempotencyKeyReused,
    NotFound,
    PreconditionFailed,
)
from catalog.http.pagination import Cursors
from catalog.products import queries, service
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.log_reader import read_changes
from catalog.products.idempotency import keyed_create
from catalog.products.listing.page_reader import read_pages, read_rows
from catalog.products.listing.page_request import PageRequests
from catalog.products.models import NewProduct, Product
from catalog.products.schemas import ListQuery
from catalog.products.search.tokenizer import terms_of
from catalog.products.selection import Selection
from catalog.products.service import delete_products_of, insert_unlogged
from catalog.products.writes import Create, Delete, Precondition, Update, WriteResult
from catalog.products.writes.batch import write_products
from catalog.products.writes.requests import BatchFull, LockedElsewhere, Write, characters_of
from tests.auth.rows import disable
from tests.db.support import on_servers, run_on
from tests.products.changes.support import content_of

ADA, BOB, GRACE, UNKNOWN_OWNER = 1, 2, 3, 4


@pytest.fixture
async def database(database: Database) -> Database:
    """Return the app's database with two users and an administrator."""

    async def sign_up(session: AsyncSession) -> None:
        for user_id, name in ((ADA, "ada"), (BOB, "bob"), (GRACE, "grace")):
            role = Role.ADMIN if name == "grace" else Role.USER
            texts = dict.fromkeys(("username", "username_key", "email", "email_key"), name)
            session.add(User(id=user_id, password_hash="", role=role, **texts))

    await database.transaction(sign_up)
    return database


async def create_product(
    database: Database, name: str = "Lamp", caller_id: int = ADA
) -> dict[str, Any]:
    return (await write(database, lamp(caller_id, name))).product


async def write(database: Database, one: Write) -> WriteResult:
    (outcome,) = await database.transaction(write_products, [one], waits=True)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def lamp(caller_id: int, name: str = "Lamp") -> Create:
    return Create(NewProduct(name, None, 1.0, caller_id))


def with_key(key: str, name: str = "Lamp", caller_id: int = ADA) -> Create:
    product = lamp(caller_id, name).new_product
    return Create(product, keyed_create(product, key))


async def withdraw(database: Database, product_id: int, caller_id: int) -> None:
    await write(database, Delete(product_id, caller_id))


async def listed(database: Database, **options: Any) -> list[dict[str, Any]]:
    options = {"selection": Selection(), "after": None, "limit": 100, **options}

    async def read(connection: ReadConnection) -> Sequence[Sequence[Any]]:
        return await read_rows(connection, **options)

    rows = await run_on(database.connection(), read)
    return [queries.members_of(row) for row in rows]


class TestCreateProduct:
    async def test_returned_product_equals_the_listed_one(self, database: Database) -> None:
        product = await create_product(database)

        assert await listed(database) == [product]

    async def test_failed_transaction_leaves_no_product(self, database: Database) -> None:
        async def create_and_fail(session: AsyncSession) -> None:
            await write_products(session, [lamp(ADA)])
            raise NotFound

        with pytest.raises(NotFound):
            await database.transaction(create_and_fail)

        assert await listed(database) == []

    @on_servers
    @pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
    async def test_ids_are_right_when_the_cluster_size_changes_during_the_insert(
        self, database: Database, before: int, after: int
    ) -> None:
        attempts: list[AsyncSession] = []

        async def create(session: AsyncSession) -> list[Any]:
            attempts.append(session)
            if len(attempts) == 1:
                await session.execute(text(f"SET SESSION auto_increment_increment = {before}"))
                connection = (await session.connection()).sync_connection
                event.listen(connection, "before_cursor_execute", change_step)
            lamps = [lamp(ADA, f"Lamp {n}") for n in range(5)]
            return list(await write_products(session, lamps))

        def change_step(_connection: object, cursor: Any, statement: str, *_: object) -> None:
            if statement.startswith("INSERT INTO products"):
                cursor.execute(f"SET SESSION auto_increment_increment = {after}")

        outcomes = await database.transaction(create)

        assert len(attempts) == 2
        assert await listed(database) == [each.product for each in reversed(outcomes)]

    @on_servers
    async def test_changed_id_step_is_read_again_on_every_connection(
        self, database: Database
    ) -> None:
        new_products = [lamp(ADA, f"Lamp {n}").new_product for n in range(3)]
        # More connections than a transaction has attempts.
        connections = asyncio.Barrier(5)

        async def learn(session: AsyncSession) -> None:
            await insert_unlogged(session, new_products, at=now())
            await session.execute(text("SET SESSION auto_increment_increment = 3"))
            await connections.wait()
            raise NotFound

        learners = (database.transaction(learn) for _ in range(connections.parties))
        for outcome in await asyncio.gather(*learners, return_exceptions=True):
            assert isinstance(outcome, NotFound)

        creates = [lamp(ADA, f"Lamp {n}") for n in range(3)]
        outcomes = await database.transaction(write_products, creates)

        assert await listed(database) == [each.product for each in reversed(outcomes)]

    async def test_disabled_and_missing_accounts_are_refused(self, database: Database) -> None:
        await database.transaction(disable, ADA)

        for caller_id in (ADA, UNKNOWN_OWNER):
            with pytest.raises(AccountUnavailable):
                await create_product(database, caller_id=caller_id)

        assert await listed(database) == []


class TestCreateWithKey:
    async def test_repeat_returns_the_first_result_as_replayed(self, database: Database) -> None:
        create = with_key("key")

        (first,) = await database.transaction(write_products, [create])
        (again,) = await database.transaction(write_products, [create])
        (other,) = await database.transaction(write_products, [with_key("another")])

        assert isinstance(first, WriteResult)
        assert isinstance(again, WriteResult)
        assert isinstance(other, WriteResult)
        assert (first.replayed, again.replayed, other.replayed) == (False, True, False)
        assert (again.product, again.change) == (first.product, first.change)
        assert other.product["id"] != first.product["id"]
        assert len(await listed(database)) == 2

    async def test_other_content_under_the_key_is_refused(self, database: Database) -> None:
        await database.transaction(write_products, [with_key("key")])

        (refusal,) = await database.transaction(write_products, [with_key("key", "Desk")])

        assert isinstance(refusal, IdempotencyKeyReused)
        (error,) = refusal.errors
        assert (error.place, error.name) == ("header", "Idempotency-Key")

    async def test_outcomes_of_a_batch_are_in_its_order(self, database: Database) -> None:
        await database.transaction(write_products, [with_key("key")])
        batch = [
            lamp(ADA, "1"),
            lamp(UNKNOWN_OWNER),
            with_key("key"),
            with_key("new", "2"),
            lamp(BOB),
        ]

        refused, results = {}, {}
        for index, outcome in enumerate(await database.transaction(write_products, batch)):
            if isinstance(outcome, Exception):
                refused[index] = outcome
            else:
                results[index] = outcome

        assert [(index, type(error)) for index, error in refused.items()] == [
            (1, AccountUnavailable)
        ]
        assert [results[index].replayed for index in (0, 2, 3, 4)] == [False, True, False, False]
        written = [results[index] for index in (0, 3, 4)]
        assert [result.product["name"] for result in written] == ["1", "2", "Lamp"]
        assert [result.change.position for result in written] == [2, 3, 4]
        assert {result.batch_position for result in written} == {4}
        assert results[2].batch_position is None

    def test_size_of_a_create_is_that_of_its_texts(self) -> None:
        new_products = [
            NewProduct("Lamp", None, 1.0, ADA),
            NewProduct("Lamp", "Warm", 1.0, ADA),
            NewProduct("Lamp", "Warm", 1.0, ADA, None, "lamp warm"),
        ]

        assert [characters_of(Create(each)) for each in new_products] == [4, 8, 17]

    def test_size_of_an_edit_includes_texts_that_it_replaces(self) -> None:
        update = Update(1, ADA, {"name": "Lamp", "price": 1.0})
        delete = Delete(1, ADA)

        sizes = [characters_of(each) for each in (update, update._replace(stored_bytes=10))]
        assert sizes == [4, 14]
        assert [characters_of(delete), characters_of(delete._replace(stored_bytes=9))] == [0, 9]


class TestChangeProduct:
    async def change(
        self,
        database: Database,
        product_id: int,
        caller_id: int = ADA,
        *,
        precondition: Precondition | None = None,
        **values: Any,
    ) -> WriteResult:
        return await write(database, Update(product_id, caller_id, values, precondition))

    @pytest.mark.parametrize("caller_id", [ADA, GRACE])
    async def test_owner_and_administrator_may_change(
        self, database: Database, caller_id: int
    ) -> None:
        before = await create_product(database)

        result = await self.change(database, before["id"], caller_id, name="Desk", price=2.0)

        assert result.product["updated_at"] > before["updated_at"]
        changed = {"name": "Desk", "price": 2.0, "version": 2}
        assert result.product == {
            **before,
            **changed,
            "updated_at": result.product["updated_at"],
        }
        assert await listed(database) == [result.product]
        assert (result.change.position, result.replayed) == (2, False)

    async def test_stranger_is_refused(self, database: Database) -> None:
        before = await create_product(database)

        with pytest.raises(Forbidden):
            await self.change(database, before["id"], BOB, name="Desk")

        assert await listed(database) == [before]

    async def test_equal_values_write_nothing(self, database: Database) -> None:
        before = await create_product(database)

        result = await self.change(database, before["id"], name="Lamp", price=1.0)

        assert result.product == before
        assert result.change.position == 1

    async def test_precondition_is_checked_on_the_current_product(self, database: Database) -> None:
        before = await create_product(database)
        seen: list[dict[str, Any]] = []

        def refuse(product: dict[str, Any]) -> bool:
            seen.append(product)
            return False

        with pytest.raises(PreconditionFailed):
            await self.change(database, before["id"], precondition=refuse, name="Desk")
        allowed = await self.change(
            database, before["id"], precondition=lambda _: True, name="Desk"
        )

        assert seen == [before]
        assert allowed.product["name"] == "Desk"

    async def test_preconditions_of_a_batch_are_checked_in_turns(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each may compute the entity tag of a long product."""
        monkeypatch.setattr("catalog.concurrency.turns.TURN_SECONDS", -1.0)
        lamp = (await create_product(database))["id"]
        turns: list[int] = []
        loop = asyncio.get_running_loop()

        def note_turn() -> None:
            turns.append(0)
            waiting[0] = loop.call_soon(note_turn)

        def precondition(_product: dict[str, Any]) -> bool:
            turns[-1] += 1
            return False

        waiting = [loop.call_soon(note_turn)]
        try:
            refused = await database.transaction(
                write_products,
                [Update(lamp, ADA, {"price": 2.0}, precondition) for _ in range(5)]
                + [Delete(lamp, ADA, precondition) for _ in range(5)],
            )
        finally:
            waiting[0].cancel()

        assert {type(each) for each in refused} == {PreconditionFailed}
        assert (sum(turns), max(turns)) == (10, 1)

    async def test_missing_product_is_not_found(self, database: Database) -> None:
        with pytest.raises(NotFound):
            await self.change(database, 7, name="Desk")


class TestDeleteProductsOf:
    async def test_products_of_one_account_go_and_are_logged(self, database: Database) -> None:
        mine = [await create_product(database, name) for name in ("Lamp", "Desk")]
        other = await create_product(database, caller_id=BOB)

        await database.transaction(delete_products_of, ADA)
        await database.transaction(delete_products_of, ADA)

        assert await listed(database) == [other]
        changes = await run_on(database.connection(), read_changes, since=ChangeId(3), limit=10)
        assert [(each["type"], each["id"]) for each in content_of(changes)] == [
            ("deleted", product["id"]) for product in mine
        ]

    @pytest.mark.parametrize(
        ("limits", "transactions"),
        [({"MAX_DELETED": 2}, 3), ({"MAX_DELETED_BYTES": 9}, 3), ({"MAX_DELETED_BYTES": 1}, 5)],
    )
    async def test_each_transaction_deletes_a_part_of_many_products(
        self,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        limits: dict[str, int],
        transactions: int,
    ) -> None:
        for name, limit in limits.items():
            monkeypatch.setattr(service, name, limit)
        mine = [await create_product(database) for _ in range(5)]
        other = await create_product(database, caller_id=BOB)

        count = 1
        while not await database.transaction(delete_products_of, ADA):
            count += 1

        assert count == transactions
        assert await listed(database) == [other]
        changes = await run_on(database.connection(), read_changes, since=ChangeId(6), limit=10)
        assert [each["id"] for each in content_of(changes)] == [product["id"] for product in mine]


class TestDeleteProduct:
    @pytest.mark.parametrize("caller_id", [ADA, GRACE], ids=["owner", "administrator"])
    async def test_owner_and_administrator_may_delete(
        self, database: Database, caller_id: int
    ) -> None:
        product = await create_product(database)

        await withdraw(database, product["id"], caller_id)

        assert await listed(database) == []

    async def test_stranger_is_refused_and_the_product_stays(self, database: Database) -> None:
        product = await create_product(database)

        with pytest.raises(Forbidden):
            await withdraw(database, product["id"], BOB)

        assert await listed(database) == [product]

    @pytest.mark.parametrize(
        "caller_id", [ADA, BOB, GRACE], ids=["owner", "other", "administrator"]
    )
    async def test_deleted_product_is_not_found_by_any_caller(
        self, database: Database, caller_id: int
    ) -> None:
        product = await create_product(database)
        await withdraw(database, product["id"], ADA)

        with pytest.raises(NotFound):
            await withdraw(database, product["id"], caller_id)

    async def test_disabled_owner_and_administrator_are_refused(self, database: Database) -> None:
        product = await create_product(database)
        await database.transaction(disable, ADA)
        await database.transaction(disable, GRACE)

        for caller_id in (ADA, GRACE):
            with pytest.raises(AccountUnavailable):
                await withdraw(database, product["id"], caller_id)

        assert await listed(database) == [product]

    async def test_concurrent_deletes_succeed_exactly_once(self, database: Database) -> None:
        for _ in range(5):
            product = await create_product(database)

            outcomes = await asyncio.gather(
                withdraw(database, product["id"], ADA),
                withdraw(database, product["id"], GRACE),
                return_exceptions=True,
            )

            refused = [each for each in outcomes if isinstance(each, BaseException)]
            assert [type(each) for each in refused] == [NotFound]


class TestBatchOfEdits:
    async def test_each_edit_is_decided_by_its_own_rule(self, database: Database) -> None:
        lamp_, desk, stool = [
            await create_product(database, name) for name in ("Lamp", "Desk", "Stool")
        ]
        batch: list[Write] = [
            Update(lamp_["id"], ADA, {"price": 2.0}),
            Update(lamp_["id"], BOB, {"price": 3.0}),
            Update(desk["id"], ADA, {"name": "Bed"}, lambda _: False),
            Delete(stool["id"] + 7, ADA),
            Delete(stool["id"], UNKNOWN_OWNER),
            Delete(stool["id"], GRACE),
            lamp(BOB, "Chair"),
        ]

        outcomes = await database.transaction(write_products, batch)

        kinds = [type(each) for each in outcomes]
        refused = [Forbidden, PreconditionFailed, NotFound, AccountUnavailable]
        assert kinds == [WriteResult, *refused, WriteResult, WriteResult]
        listing = [
            (each["name"], each["price"], each["version"]) for each in await listed(database)
        ]
        assert listing == [("Chair", 1.0, 1), ("Desk", 1.0, 1), ("Lamp", 2.0, 2)]

    async def test_edits_of_one_product_see_each_other_in_their_order(
        self, database: Database
    ) -> None:
        before = await create_product(database)
        product_id = before["id"]
        batch: list[Write] = [
            Update(product_id, ADA, {"price": 2.0}, lambda product: product["version"] == 1),
            Update(product_id, ADA, {"price": 2.0}),
            Update(product_id, ADA, {"name": "Desk"}, lambda product: product["version"] == 2),
            Update(product_id, ADA, {"name": "Bed"}, lambda product: product["version"] == 2),
            Delete(product_id, ADA, lambda product: product["name"] == "Desk"),
            Update(product_id, ADA, {"name": "Chair"}),
        ]

        outcomes = await database.transaction(write_products, batch)

        done = [each for each in outcomes if isinstance(each, WriteResult)]
        assert [each.change.position for each in done] == [2, 2, 3, 4]
        assert [each.batch_position for each in done] == [4, None, 4, 4]
        assert [each.product["version"] for each in done] == [2, 2, 3, 3]
        assert [type(outcomes[place]) for place in (3, 5)] == [PreconditionFailed, NotFound]
        assert await listed(database) == []
        logged = await run_on(database.connection(), read_changes, since=ChangeId(1), limit=9)
        assert [(each["type"], each["version"]) for each in content_of(logged)] == [
            ("updated", 2),
            ("updated", 3),
            ("deleted", 3),
        ]

    async def test_edit_without_effect_has_the_last_change_before_the_batch(
        self, database: Database
    ) -> None:
        first, second = await create_product(database), await create_product(database)
        batch = [
            Update(first["id"], ADA, {"price": 5.0}),
            Update(second["id"], ADA, {"price": second["price"]}),
        ]

        outcomes = await database.transaction(write_products, batch)

        done = [each for each in outcomes if isinstance(each, WriteResult)]
        assert [each.change.position for each in done] == [3, 2]
        assert done[1].product == second

    async def test_updated_values_are_stored_exactly(self, database: Database) -> None:
        values: list[dict[str, Any]] = [
            {"name": "100 % 'quoted' \"text\" \\ :a ?", "description": "\u00e9\u4e2d\U0001f600"},
            {"name": "x" * 512, "description": "y" * 16_383, "price": 0.1 + 0.2},
            {"price": 1e12},
            {"description": None},
            {"price": 5e-324},
            {"name": "Caf\u00e9 ", "price": 0.0},
        ]
        made = [await create_product(database) for _ in values]
        batch = [Update(each["id"], ADA, new) for each, new in zip(made, values, strict=True)]
        await database.transaction(
            write_products, [Update(made[3]["id"], ADA, {"description": "-"})]
        )

        outcomes = await database.transaction(write_products, batch)

        done = [each.product for each in outcomes if isinstance(each, WriteResult)]
        assert await listed(database) == done[::-1]
        for each, old, new in zip(done, made, values, strict=True):
            assert {**old, **new} == {
                **each,
                "version": 1,
                "updated_at": old["updated_at"],
            }

    async def test_new_words_are_found_and_old_ones_are_not(self, database: Database) -> None:
        made = [await create_product(database) for _ in range(3)]
        batch = [Update(each["id"], ADA, {"name": f"Desk {each['id']}"}) for each in made]

        await database.transaction(write_products, batch)

        for words, found in (
            ("desk", made[::-1]),
            ("lamp", []),
            (f"desk {made[1]['id']}", made[1:2]),
        ):
            selection = Selection(terms=terms_of(words))
            shown = await listed(database, selection=selection)
            assert [each["id"] for each in shown] == [each["id"] for each in found]

    async def test_short_edits_of_long_products_are_put_off_when_the_batch_is_full(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.products.writes.batch.MAX_REINDEXED_BYTES", 450)
        new_products = [NewProduct("Lamp", "ä" * 98, 1.0, ADA, key=f"k{n}") for n in range(7)]
        made = [(await write(database, Create(each))).product["id"] for each in new_products]
        writes: list[Write] = [
            Update(made[0], BOB, {"name": "Desk"}),
            Update(made[0], ADA, {"name": "Lamp"}),
            Update(made[0], ADA, {"name": "Desk"}),
            Update(made[0], ADA, {"name": "Rugs"}),
            Delete(made[1], ADA),
            Update(made[2], ADA, {"name": "Desk", "key": "k"}),
            Delete(made[3], ADA),
            Update(made[4], ADA, {"description": None}),
            Update(made[5], ADA, {"price": 2.0, "key": "k"}),
            Update(made[0], ADA, {"name": "Mats"}),
        ]

        outcomes = await database.transaction(write_products, writes)

        kinds = [type(each) for each in outcomes]
        assert kinds == [
            *(Forbidden, WriteResult, WriteResult, WriteResult, WriteResult),
            *(BatchFull, BatchFull, WriteResult, WriteResult, WriteResult),
        ]
        assert [each.stored_bytes for each in outcomes if isinstance(each, BatchFull)] == [200, 200]

    async def test_single_edit_of_a_long_product_is_never_put_off(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.products.writes.batch.MAX_REINDEXED_BYTES", 1)
        lamp = await create_product(database)

        assert (await write(database, Update(lamp["id"], ADA, {"name": "Desk"}))).product
        assert (await write(database, Delete(lamp["id"], ADA))).product

    @on_servers
    async def test_product_locked_elsewhere_holds_up_no_other_write(
        self, database: Database
    ) -> None:
        locked, free = await create_product(database), await create_product(database)
        is_locked, may_end = asyncio.Event(), asyncio.Event()

        async def lock(session: AsyncSession) -> None:
            statement = select(Product.id).where(Product.id == locked["id"]).with_for_update()
            await session.execute(statement)
            is_locked.set()
            await may_end.wait()

        holding = asyncio.create_task(database.transaction(lock))
        await is_locked.wait()
        batch = [Update(each["id"], ADA, {"price": 7.0}) for each in (locked, free)]

        outcomes = await database.transaction(write_products, batch)
        waiting = asyncio.create_task(database.transaction(write_products, batch[:1], waits=True))
        may_end.set()
        await holding

        assert [type(each) for each in outcomes] == [LockedElsewhere, WriteResult]
        (outcome,) = await waiting
        assert isinstance(outcome, WriteResult)
        assert [each["price"] for each in await listed(database)] == [7.0, 7.0]


class TestReadPages:
    async def test_next_page_exists_only_if_it_has_products(self, database: Database) -> None:
        ids = [(await create_product(database))["id"] for _ in range(3)]

        async def last(limit: int, *after: int) -> object:
            cursors = Cursors(b"secret")
            begin = PageRequests(cursors).for_all(ListQuery(limit=limit), b"", prefix="")
            query = ListQuery(limit=limit, cursor=begin.place.next_cursor(after or None))
            request = PageRequests(cursors).for_all(query, b"", prefix="")
            (page,) = await run_on(database.connection(), read_pages, [request])
            return page.last

        assert await last(2) == (ids[1],)
        assert await last(3) is None
        assert await last(1, ids[2]) == (ids[1],)
        assert await last(1, ids[1]) is None
        assert await last(1, ids[0]) is None

    async def test_owner_filter_selects_the_owners_products(self, database: Database) -> None:
        await create_product(database, "Lamp", ADA)
        await create_product(database, "Chair", BOB)
        await create_product(database, "Stool", ADA)

        async def names(**options: Any) -> list[str]:
            return [product["name"] for product in await listed(database, **options)]

        assert await names() == ["Stool", "Chair", "Lamp"]
        assert await names(selection=Selection(user_id=ADA)) == ["Stool", "Lamp"]
        assert await names(selection=Selection(user_id=ADA), after=(3,)) == ["Lamp"]
        assert await names(selection=Selection(user_id=UNKNOWN_OWNER)) == []
