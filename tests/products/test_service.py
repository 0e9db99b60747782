"""Product service without HTTP: its decisions and their effects in the database."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.models import Role, User
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.errors import AccountUnavailable, CatalogError, Forbidden, NotFound
from catalog.products.listing.page_reader import PageQuery, list_products
from catalog.products.models import NewProduct
from catalog.products.selection import Selection
from catalog.products.service import (
    Create,
    create_products,
    delete_product,
    insert_unlogged,
)
from tests.db.support import on_servers

ADA, BOB, GRACE, NOBODY = 1, 2, 3, 4


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


async def offer(database: Database, name: str = "Lamp", caller_id: int = ADA) -> dict[str, Any]:
    (outcome,) = await database.transaction(create_products, [lamp(caller_id, name)])
    if isinstance(outcome, CatalogError):
        raise outcome
    return outcome.product


def lamp(caller_id: int, name: str = "Lamp") -> Create:
    return Create(NewProduct(name, None, 1.0, caller_id))


async def withdraw(database: Database, product_id: int, caller_id: int) -> None:
    await database.transaction(delete_product, product_id=product_id, caller_id=caller_id)


async def listed(database: Database, **options: Any) -> list[dict[str, Any]]:
    options = {"selection": Selection(), "after": None, "limit": 100, **options}
    (page,) = await database.reading(list_products, PageQuery(**options))
    products = page.products
    return [products[index] for index in range(len(products))]


async def disable(session: AsyncSession, user_id: int) -> None:
    await session.execute(update(User).where(User.id == user_id).values(disabled=True))


class TestCreateProduct:
    async def test_returned_product_equals_the_listed_one(self, database: Database) -> None:
        product = await offer(database)

        assert await listed(database) == [product]

    async def test_failed_transaction_leaves_no_product(self, database: Database) -> None:
        async def create_and_fail(session: AsyncSession) -> None:
            await create_products(session, [lamp(ADA)])
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
            return await create_products(session, [lamp(ADA, f"Lamp {n}") for n in range(5)])

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
        offers = [lamp(ADA, f"Lamp {n}").offer for n in range(3)]
        # More connections than a transaction has attempts.
        connections = asyncio.Barrier(5)

        async def learn(session: AsyncSession) -> None:
            await insert_unlogged(session, offers, at=now())
            await session.execute(text("SET SESSION auto_increment_increment = 3"))
            await connections.wait()
            raise NotFound

        learners = (database.transaction(learn) for _ in range(connections.parties))
        for outcome in await asyncio.gather(*learners, return_exceptions=True):
            assert isinstance(outcome, NotFound)

        creates = [lamp(ADA, f"Lamp {n}") for n in range(3)]
        outcomes = await database.transaction(create_products, creates)

        assert await listed(database) == [each.product for each in reversed(outcomes)]

    async def test_disabled_and_missing_accounts_are_refused(self, database: Database) -> None:
        await database.transaction(disable, ADA)

        for caller_id in (ADA, NOBODY):
            with pytest.raises(AccountUnavailable):
                await offer(database, caller_id=caller_id)

        assert await listed(database) == []


class TestDeleteProduct:
    @pytest.mark.parametrize("caller_id", [ADA, GRACE], ids=["owner", "administrator"])
    async def test_owner_and_administrator_may_delete(
        self, database: Database, caller_id: int
    ) -> None:
        product = await offer(database)

        await withdraw(database, product["id"], caller_id)

        assert await listed(database) == []

    async def test_stranger_is_refused_and_the_product_stays(self, database: Database) -> None:
        product = await offer(database)

        with pytest.raises(Forbidden):
            await withdraw(database, product["id"], BOB)

        assert await listed(database) == [product]

    @pytest.mark.parametrize(
        "caller_id", [ADA, BOB, GRACE], ids=["owner", "other", "administrator"]
    )
    async def test_deleted_product_is_not_found_by_any_caller(
        self, database: Database, caller_id: int
    ) -> None:
        product = await offer(database)
        await withdraw(database, product["id"], ADA)

        with pytest.raises(NotFound):
            await withdraw(database, product["id"], caller_id)

    async def test_disabled_owner_and_administrator_are_refused(self, database: Database) -> None:
        product = await offer(database)
        await database.transaction(disable, ADA)
        await database.transaction(disable, GRACE)

        for caller_id in (ADA, GRACE):
            with pytest.raises(AccountUnavailable):
                await withdraw(database, product["id"], caller_id)

        assert await listed(database) == [product]

    async def test_concurrent_deletes_succeed_exactly_once(self, database: Database) -> None:
        for _ in range(5):
            product = await offer(database)

            outcomes = await asyncio.gather(
                withdraw(database, product["id"], ADA),
                withdraw(database, product["id"], GRACE),
                return_exceptions=True,
            )

            refused = [each for each in outcomes if isinstance(each, BaseException)]
            assert [type(each) for each in refused] == [NotFound]


class TestListProducts:
    async def test_next_page_exists_only_if_it_has_products(self, database: Database) -> None:
        ids = [(await offer(database))["id"] for _ in range(3)]

        async def last(limit: int, *after: int) -> object:
            wanted = PageQuery(Selection(), after or None, limit)
            (page,) = await database.reading(list_products, wanted)
            return page.last

        assert await last(2) == (ids[1],)
        assert await last(3) is None
        assert await last(1, ids[2]) == (ids[1],)
        assert await last(1, ids[1]) is None
        assert await last(1, ids[0]) is None

    async def test_owner_filter_selects_the_owners_products(self, database: Database) -> None:
        await offer(database, "Lamp", ADA)
        await offer(database, "Chair", BOB)
        await offer(database, "Stool", ADA)

        async def names(**options: Any) -> list[str]:
            return [product["name"] for product in await listed(database, **options)]

        assert await names() == ["Stool", "Chair", "Lamp"]
        assert await names(selection=Selection(user_id=ADA)) == ["Stool", "Lamp"]
        assert await names(selection=Selection(user_id=ADA), after=(3,)) == ["Lamp"]
        assert await names(selection=Selection(user_id=NOBODY)) == []
