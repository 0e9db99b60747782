"""Texts that the servers select for products become the JSON of the products."""

from typing import Any

import orjson
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.database import Database
from catalog.products import queries, service
from catalog.products.models import NewProduct, Product
from catalog.products.product_encoding import (
    encoded,
    id_of,
    json_array,
    json_objects,
    version_of,
)
from tests.db.support import on_servers, run_on
from tests.products.awkward_values import PRICES, TEXTS
from tests.products.encoded_texts import text_of
from tests.support import Caller


@on_servers
async def test_texts_of_the_servers_become_the_json_of_rows(
    ada: Caller, database: Database
) -> None:
    new_products = [
        # Each account has a key once.
        NewProduct(text + "x", also, price, ada.user_id or 0, key=also and f"{also}{number}")
        for text, also in zip(TEXTS, (None, *TEXTS), strict=False)
        for number, price in enumerate(PRICES)
    ]
    await database.transaction(service.insert_products, new_products)

    async def read(connection: AsyncConnection) -> tuple[list[bytes], list[dict[str, Any]]]:
        in_order = Product.__table__.c.id
        texts = await connection.scalars(select(encoded()).order_by(in_order))
        rows = await connection.execute(select(*queries.COLUMNS).order_by(in_order))
        return [each.encode() for each in texts], [queries.members_of(row) for row in rows]

    texts, products = await run_on(database.connection(), read)

    assert len(texts) == len(new_products)
    assert json_array(texts) == orjson.dumps(products)
    objects = json_objects(texts)
    assert objects == [orjson.dumps(each) for each in products]
    assert [id_of(text) for text in texts] == [each["id"] for each in products]
    assert [version_of(each) for each in objects] == [1] * len(products)


def test_no_products_are_an_empty_array() -> None:
    assert json_array([]) == b"[]"
    assert json_objects([]) == []


@pytest.mark.parametrize("others", [[], [0.5], [3e-9], [12.0]])
@pytest.mark.parametrize("price", [0.0, 12.0, 0.5, 1e-7, 5e-324, 123456789.125])
def test_prices_are_written_as_the_json_library_does(price: float, others: list[float]) -> None:
    prices = [price, *others]

    array = json_array([text_of("Lamp", None, each, None) for each in prices])

    assert b'"price":' + orjson.dumps(price) + b"," in array
    assert [each["price"] for each in orjson.loads(array)] == prices


@pytest.mark.parametrize("text", ['"', "\\", "\x01", '""', "Lamp", "é", "null"])
def test_texts_are_escaped(text: str) -> None:
    array = json_array([text_of(text, text, 1.5, text), text_of("Lamp", None, 1.5, None)])

    first, second = orjson.loads(array)
    assert [first[name] for name in ("name", "description", "key")] == [text] * 3
    assert [second[name] for name in ("name", "description", "key")] == ["Lamp", None, None]
    assert array == orjson.dumps([first, second])


def test_version_is_that_of_the_product_whatever_its_texts_are() -> None:
    (product,) = json_objects([text_of("Lamp", '"version":9,', 1.5, '"version":9,')])

    assert version_of(product) == orjson.loads(product)["version"]
