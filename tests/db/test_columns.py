"""Column types behave alike on every engine: text, prices, timestamps and ids."""

import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import delete, insert, literal, select, text, update
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.models import User
from catalog.db.columns import MAX_ID, rfc3339, rfc3339_text
from catalog.db.database import Database
from catalog.errors import Conflict
from catalog.products.models import MAX_DESCRIPTION, MAX_NAME, Product
from tests.db.support import OWNER, add_product, count_products, run_on

# All examples of a test share one database: each inserts rows of its own.
with_one_database = examples(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

table = Product.__table__.c


async def add_products(session: AsyncSession, rows: list[dict[str, Any]]) -> list[int]:
    """Insert products and return their ids."""
    return [await add_product(session, **row) for row in rows]


async def read(connection: AsyncConnection, column: Any, ids: list[int]) -> list[Any]:
    """Return one column of the products with these ids, in the order of the ids."""
    found = {row[0]: row[1] for row in await connection.execute(select(table.id, column))}
    return [found[product_id] for product_id in ids]


# Pairs that some collation treats as equal.
DIFFERENT = {
    "case": ("a", "A"),
    "accent": ("jose", "jos\u00e9"),
    "composition": ("jos\u00e9", "jose\u0301"),
    "trailing space": ("bob", "bob "),
    "leading space": ("bob", " bob"),
    "tab and space": ("a\tb", "a b"),
    "trailing tab": ("bob\t", "bob"),
    "emoji": ("\U0001f600", "\U0001f4a9"),
    "width": ("\uff41", "a"),
    "sharp s": ("stra\u00dfe", "strasse"),
    "ideographs": ("\u4e00", "\u4e01"),
    "beyond the basic plane": ("\U00020000", "\u3400"),
    # Sorted by UTF-16 code unit, these would swap.
    "specials and emoji": ("\uffee", "\U0001f600"),
    "zero width": ("bob", "bo\u200bb"),
    "empty and blank": ("", " "),
    "kana": ("\u30cf", "\u3070"),
}
WORDS = sorted({word for pair in DIFFERENT.values() for word in pair})


class TestText:
    async def test_text_equals_only_itself(self, database: Database) -> None:
        await database.transaction(add_products, [{"name": word} for word in WORDS])

        async def equal_to(connection: AsyncConnection, word: str) -> list[str]:
            return list(await connection.scalars(select(table.name).where(table.name == word)))

        for word in WORDS:
            assert await run_on(database.connection(), equal_to, word) == [word]

    async def test_names_sort_by_code_point(self, database: Database) -> None:
        await database.transaction(add_products, [{"name": word} for word in WORDS])

        async def ordered(connection: AsyncConnection) -> list[str]:
            return list(await connection.scalars(select(table.name).order_by(table.name)))

        assert await run_on(database.connection(), ordered) == WORDS

    async def test_unique_index_rejects_only_identical_text(self, database: Database) -> None:
        async def sign_up(session: AsyncSession, names: list[str]) -> None:
            for name in names:
                session.add(
                    User(
                        username=name,
                        username_key=name,
                        email=name,
                        email_key=name,
                        password_hash="",
                    )
                )
                await session.flush()

        await database.transaction(sign_up, WORDS)

        for word in WORDS:
            with pytest.raises(Conflict):
                await database.transaction(sign_up, [word])

    async def test_descriptions_sort_by_code_point(self, database: Database) -> None:
        rows = [{"name": "x", "description": word} for word in WORDS]
        await database.transaction(add_products, rows)

        async def ordered(connection: AsyncConnection) -> list[str]:
            by_text = select(table.description).order_by(table.description)
            return list(await connection.scalars(by_text))

        assert await run_on(database.connection(), ordered) == WORDS

    @pytest.mark.parametrize("letter", ["x", "\u00e9", "\u4e00", "\U0001f600"])
    async def test_length_in_characters_is_enforced_by_the_database(
        self, database: Database, letter: str
    ) -> None:
        longest = {"name": letter * MAX_NAME, "description": letter * MAX_DESCRIPTION}
        (product_id,) = await database.transaction(add_products, [longest])

        for too_long in ("name", "username", "email"):
            with pytest.raises(DBAPIError):
                await database.transaction(widen, too_long, letter)

        assert await run_on(database.connection(), read, table.name, [product_id]) == [
            letter * MAX_NAME
        ]

    async def test_description_of_65536_bytes_is_refused(self, database: Database) -> None:
        with pytest.raises(DBAPIError):
            await database.transaction(add_product, "Lamp", description="x" * 65_536)

        assert await run_on(database.connection(), count_products) == 0

    @with_one_database
    @example(
        names=["' OR 1=1 --", "100%", "%s %(name)s", "\\", "\\' \\\"", ":name", "a\tb\r\nc", "?"]
    )
    @given(
        names=st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40), min_size=1
        )
    )
    async def test_text_round_trips_unchanged(self, database: Database, names: list[str]) -> None:
        ids = await database.transaction(add_products, [{"name": name} for name in names])

        assert await run_on(database.connection(), read, table.name, ids) == names


async def widen(session: AsyncSession, column: str, letter: str) -> None:
    """Try to store one character more than the column holds."""
    if column == "name":
        await session.execute(update(Product).values(name=letter * (MAX_NAME + 1)))
    elif column == "username":
        await session.execute(update(User).values(username=letter * 81))
    else:
        await session.execute(update(User).values(email=letter * 121))


class TestPrice:
    @pytest.mark.parametrize("price", [-0.01, -1e300, 1e12 + 1, math.nextafter(1e12, 2e12)])
    async def test_price_out_of_range_is_refused_by_the_database(
        self, database: Database, price: float
    ) -> None:
        with pytest.raises(DBAPIError):
            await database.transaction(add_product, "Lamp", price=price)

        assert await run_on(database.connection(), count_products) == 0

    @pytest.mark.parametrize("value", ["'cheap'", "NULL", "'12a'"])
    async def test_price_that_is_not_a_number_is_refused_by_the_database(
        self, database: Database, value: str
    ) -> None:
        await database.transaction(add_product, "Lamp", price=7.0)

        async def write(session: AsyncSession) -> None:
            await session.execute(text(f"UPDATE products SET price = {value}"))  # noqa: S608 (from above)

        with pytest.raises(DBAPIError):
            await database.transaction(write)

        assert await run_on(database.connection(), read, table.price, [1]) == [7.0]

    @with_one_database
    @example(prices=[0.0, 5e-324, 2.2250738585072014e-308, 0.1, 131072.01, 1e12, 999999999999.9999])
    @example(prices=[1 / 3, 16777217.0, 900719925474.0993, 1e-7, 123456789.123456789])
    @given(prices=st.lists(st.floats(0, 1e12), min_size=1, max_size=60))
    async def test_price_round_trips_as_the_same_double(
        self, database: Database, prices: list[float]
    ) -> None:
        rows = [{"name": "x", "price": price + 0.0} for price in prices]
        ids = await database.transaction(add_products, rows)

        found = await run_on(database.connection(), read, table.price, ids)

        assert [struct.pack("d", price) for price in found] == [
            struct.pack("d", row["price"]) for row in rows
        ]


class TestIds:
    async def test_primary_keys_have_64_bits(self, database: Database) -> None:
        largest = await database.transaction(add_product, "Lamp", product_id=MAX_ID)

        assert largest == 2**63 - 1
        assert await run_on(database.connection(), read, table.name, [MAX_ID]) == ["Lamp"]

    async def test_foreign_keys_have_64_bits(self, database: Database) -> None:
        async def create_product(session: AsyncSession) -> None:
            await session.execute(update(User).where(User.id == OWNER).values(id=MAX_ID))
            await add_product(session, "Lamp", user_id=MAX_ID)

        await database.transaction(create_product)

        assert await run_on(database.connection(), read, table.user_id, [1]) == [MAX_ID]

    async def test_id_of_a_deleted_product_is_not_reused(self, database: Database) -> None:
        async def insert_and_delete(session: AsyncSession) -> int:
            product_id = await add_product(session, "Lamp")
            await session.execute(delete(Product).where(Product.id == product_id))
            return product_id

        ids = [await database.transaction(insert_and_delete) for _ in range(3)]

        assert ids == [1, 2, 3]

    async def test_id_of_a_deleted_account_is_not_reused(self, database: Database) -> None:
        async def come_and_go(session: AsyncSession) -> int:
            user = User(
                username="bob", username_key="bob", email="b", email_key="b", password_hash=""
            )
            session.add(user)
            await session.flush()
            await session.delete(user)
            return user.id

        ids = [await database.transaction(come_and_go) for _ in range(3)]

        assert ids == [OWNER + 1, OWNER + 2, OWNER + 3]

    async def test_deleting_an_account_cascades_to_its_products(self, database: Database) -> None:
        await database.transaction(add_product, "Lamp")

        async def leave(session: AsyncSession) -> None:
            await session.execute(delete(User).where(User.id == OWNER))

        await database.transaction(leave)

        assert await run_on(database.connection(), count_products) == 0


INSTANTS = {
    "microseconds": datetime(2026, 11, 23, 9, 30, 0, 123456, UTC),
    "none": datetime(2026, 11, 23, 9, 30, 0, 0, UTC),
    "one": datetime(1970, 1, 1, 0, 0, 0, 1, UTC),
    "all but one": datetime(2038, 1, 19, 3, 14, 7, 999999, UTC),
    "leap day": datetime(2028, 2, 29, 23, 59, 59, 999999, UTC),
    "hour that summer time skips": datetime(2026, 3, 29, 2, 30, tzinfo=UTC),
    "far away": datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
    "another zone": datetime(2026, 11, 23, 1, 0, tzinfo=timezone(timedelta(hours=5, minutes=45))),
}


async def store(session: AsyncSession, instant: datetime) -> None:
    values = {"name": "x", "price": 1.0, "user_id": OWNER, "updated_at": instant}
    await session.execute(insert(Product).values(**values, created_at=instant))


class TestTimestamp:
    @pytest.mark.parametrize("instant", INSTANTS.values(), ids=INSTANTS.keys())
    async def test_timestamp_round_trips_in_utc_to_the_microsecond(
        self, database: Database, instant: datetime
    ) -> None:
        await database.transaction(store, instant)

        (found,) = await run_on(database.connection(), read, table.created_at, [1])

        assert found == instant
        assert found.tzinfo is UTC

    @pytest.mark.parametrize("instant", INSTANTS.values(), ids=INSTANTS.keys())
    async def test_timestamp_rendered_by_the_database_equals_that_of_python(
        self, database: Database, instant: datetime
    ) -> None:
        await database.transaction(store, instant)

        (rendered,) = await run_on(database.connection(), read, rfc3339(table.created_at), [1])

        assert rendered == rfc3339_text(instant.astimezone(UTC))
        assert datetime.fromisoformat(rendered) == instant

    async def test_timestamps_sort_by_time(self, database: Database) -> None:
        for instant in INSTANTS.values():
            await database.transaction(store, instant)

        async def ordered(connection: AsyncConnection) -> list[datetime]:
            by_time = select(table.created_at).order_by(table.created_at)
            return list(await connection.scalars(by_time))

        assert await run_on(database.connection(), ordered) == sorted(INSTANTS.values())

    async def test_naive_timestamp_is_refused(self, database: Database) -> None:
        naive = datetime(2026, 11, 23, 9, 30)  # noqa: DTZ001 (under test)

        with pytest.raises(StatementError, match="naive"):
            await database.transaction(store, naive)

    async def test_timestamp_in_another_zone_is_compared_in_utc(self, database: Database) -> None:
        instant = INSTANTS["another zone"]
        await database.transaction(store, instant)

        async def find(connection: AsyncConnection) -> list[int]:
            found = select(literal(1)).where(table.created_at == instant)
            return list(await connection.scalars(found))

        assert await run_on(database.connection(), find) == [1]
