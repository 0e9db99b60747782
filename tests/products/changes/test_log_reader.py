"""Changes after a given one: texts of the database are rendered as decoded rows are."""

from collections.abc import Awaitable, Callable
from itertools import cycle
from typing import TypeVar

import pytest
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.db.columns import now
from catalog.db.database import Database
from catalog.errors import ChangesGone
from catalog.products import queries, service
from catalog.products.changes import change_log
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.change_reader import page_reply
from catalog.products.changes.log_reader import Changes, ChangesRequest, read_changes, read_each
from catalog.products.models import MAX_DESCRIPTION, ChangeType, NewProduct, Product, ProductChange
from catalog.products.queries import FEW_ROWS
from tests.db.support import on_servers, run_on
from tests.products.awkward_values import PRICES, TEXTS
from tests.support import Caller

T = TypeVar("T")

TIMEOUT_SECONDS = 30
OTHER_HISTORY = "0000000000"


@pytest.fixture
async def changes(ada: Caller, database: Database) -> int:
    """Log changes of all kinds, some with deleted products; return their number."""
    prices, owner_id = cycle(PRICES), ada.user_id or 0
    new_products = [
        NewProduct(text + "x", text * 2 or None, next(prices), owner_id, key=text.strip() or None)
        for text in (*TEXTS, *"abcd")
    ]
    new_products += [NewProduct(f"Lamp {number}", None, 1.5, owner_id) for number in range(100)]
    inserted = await database.transaction(service.insert_products, new_products)
    first, second, third = inserted.ids[:3]

    async def change(session: AsyncSession) -> None:
        await session.execute(delete(Product).where(Product.id == first))
        await change_log.record(session, ChangeType.DELETED, [(first, 1)], at=now())

    async def change_without_token(session: AsyncSession) -> None:
        last = await change_log.record(
            session, ChangeType.UPDATED, [(second, 2), (third, 2)], at=now()
        )
        untold = update(ProductChange).where(ProductChange.position == last.position - 1)
        await session.execute(untold.values(token=""))

    async def delete_one_that_exists(session: AsyncSession) -> None:
        await change_log.record(session, ChangeType.DELETED, [(third, 3)], at=now())

    for write in (change, change_without_token, delete_one_that_exists):
        await database.transaction(write)
    return len(new_products) + 4


async def both(database: Database, read: Callable[[AsyncConnection], Awaitable[T]]) -> list[T]:
    """Read from texts, on a connection of the pool, and from decoded rows, on one outside it."""
    from_texts = await run_on(database.connection(), read)
    return [from_texts, await run_on(database.watch(within=TIMEOUT_SECONDS), read)]


async def outcome_of(
    connection: AsyncConnection, since: ChangeId, limit: int, max_bytes: int = queries.PAGE_BYTES
) -> Changes | str:
    try:
        return await read_changes(connection, since=since, limit=limit, max_bytes=max_bytes)
    except ChangesGone as error:
        return error.detail


class TestReadChanges:
    @on_servers
    async def test_texts_are_rendered_as_rows_are(self, changes: int, database: Database) -> None:
        for limit in (1, FEW_ROWS, FEW_ROWS + 1, 1000):
            for position in (0, 1, changes - 5, changes - 1, changes):

                async def read(connection: AsyncConnection) -> Changes | str:
                    return await outcome_of(connection, ChangeId(position), limit)  # noqa: B023 (called at once)

                from_texts, from_rows = await both(database, read)

                assert from_texts == from_rows
                assert isinstance(from_texts, Changes)
                assert len(from_texts.entries) == min(limit, changes - position)

    @on_servers
    async def test_token_before_is_compared_in_texts_as_in_rows(
        self, changes: int, database: Database
    ) -> None:
        everything = await run_on(
            database.connection(), read_changes, since=ChangeId(0), limit=1000
        )
        own = [everything.entries[position - 1].change for position in range(1, changes)]
        for since in (*own, *(ChangeId(each.position, OTHER_HISTORY) for each in own[-5:])):

            async def read(connection: AsyncConnection) -> Changes | str:
                return await outcome_of(connection, since, 3)  # noqa: B023 (called at once)

            from_texts, from_rows = await both(database, read)

            assert from_texts == from_rows
            # The one without a token may be of any history.
            is_other = since not in own and own[since.position - 1].token
            assert isinstance(from_texts, str if is_other else Changes)

    @on_servers
    async def test_swept_change_is_gone_in_texts_as_in_rows(
        self, changes: int, database: Database
    ) -> None:
        swept = changes // 2

        async def sweep(session: AsyncSession) -> None:
            await session.execute(delete(ProductChange).where(ProductChange.position <= swept))

        await database.transaction(sweep)
        for since in (ChangeId(0), ChangeId(swept), ChangeId(swept, OTHER_HISTORY), ChangeId(1)):

            async def read(connection: AsyncConnection) -> Changes | str:
                return await outcome_of(connection, since, 3)  # noqa: B023 (called at once)

            from_texts, from_rows = await both(database, read)

            assert from_texts == from_rows
            assert isinstance(from_texts, Changes) == (since == ChangeId(swept))

    @on_servers
    @pytest.mark.parametrize("limit", [FEW_ROWS, 1000])
    async def test_long_page_ends_at_the_same_change_in_texts_as_in_rows(
        self, ada: Caller, database: Database, limit: int
    ) -> None:
        texts = cycle(("\U0001f4a1" * MAX_DESCRIPTION, "\x01" * MAX_DESCRIPTION, "a", None))
        new_products = [
            NewProduct("Lamp", next(texts), 1.0, ada.user_id or 0) for _ in range(FEW_ROWS)
        ]
        await database.transaction(service.insert_products, new_products)

        async def read(connection: AsyncConnection) -> bytes:
            found = await read_changes(connection, since=ChangeId(0), limit=limit)
            body = page_reply(found.entries, found.last, more=found.more).body
            assert isinstance(body, bytes)
            return body

        from_texts, from_rows = await both(database, read)

        assert from_texts == from_rows
        assert 0.8 * queries.PAGE_BYTES < len(from_texts) < 1.01 * queries.PAGE_BYTES

    async def test_few_changes_are_cut_as_many_are(self, ada: Caller, database: Database) -> None:
        for number in range(4):
            await ada.create_product(f"Lämp {number}", description="\U0001f4a1" * number or None)
        assert (await ada.delete(2)).status_code == 200

        for max_bytes in (0, 6, 7, 8, 14, 15, 20, 300, 600, 10_000):
            few, many = [
                await run_on(
                    database.connection(),
                    read_changes,
                    since=ChangeId(0),
                    limit=limit,
                    max_bytes=max_bytes,
                )
                for limit in (FEW_ROWS, FEW_ROWS + 1)
            ]
            assert few == many
        assert len(few.entries) == 5


class TestReadEach:
    # A request for 20 changes exceeds the second bound, those for one do not; all exceed the third.
    @pytest.mark.parametrize("max_bytes", [queries.PAGE_BYTES, 2500, 100])
    async def test_requests_have_the_same_changes_together_as_alone(
        self, changes: int, database: Database, max_bytes: int
    ) -> None:
        requests = [
            ChangesRequest(ChangeId(position, token), limit)
            for position in (0, 3, changes - 1, changes, changes + 1)
            for token in ("", OTHER_HISTORY)
            for limit in (1, 20, 1000)
        ]

        async def read(connection: AsyncConnection) -> list[Changes | str]:
            return [
                each.detail if isinstance(each, ChangesGone) else each
                async for each in read_each(connection, requests, max_bytes=max_bytes)
            ]

        together = await run_on(database.connection(), read)

        alone = [
            await run_on(database.connection(), outcome_of, *each, max_bytes) for each in requests
        ]
        assert together == alone
        assert {type(each) for each in together} == {Changes, str}
