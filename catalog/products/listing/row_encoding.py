"""Products as one text each, and JSON made of them as a whole.

On the servers, taking a page's rows apart costs the driver several times of what reading them costs
the database: every value is a step in Python. So the database joins a product's values into one
text, with a NUL between them, which no value can hold; and the texts are escaped together. Beside
them comes the last change, from the same snapshot, and any number of pages takes one trip.

SQLite's driver is written in C and has no need of it.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.raw_rows import TextQuery, read_texts
from catalog.products import queries
from catalog.products.changes.change_log import no_counter
from catalog.products.models import ChangeCounter, ChangeId, Product
from catalog.products.queries import FIELDS
from catalog.products.schemas import Sort

_SEPARATOR = "\0"
# As text and not as bytes, for which the servers take a fifth longer; and joined by ``CONCAT``,
# which costs less than ``CONCAT_WS`` does.
_NUL: ColumnElement[str] = literal_column("'\\0'")


@cache
def page(
    *, sort: Sort, filters: frozenset[str], resumed: bool, bounded: bool = False
) -> Select[Any]:
    """``queries.page`` or ``queries.bounded_page``, but a text for each product."""
    # Of the only column that may be null, null is empty and a text has a letter before it. Instants
    # are as the servers write them.
    table = Product.__table__.c
    texts: list[ColumnElement[Any]] = [table[name] for name in FIELDS]
    texts[_DESCRIPTION] = func.ifnull(func.concat("=", table.description), "")
    separated = [each for text in texts for each in (text, _NUL)][:-1]
    make = queries.bounded_page if bounded else queries.page
    found = make(sort=sort, filters=filters, resumed=resumed)
    return found.with_only_columns(func.concat(*separated))


_LONGEST_ESCAPE = 6
_BESIDES_TEXT = 400
"""Of a product's JSON: names of fields, numbers and instants."""

_CHANGE = TextQuery(select(func.concat(ChangeCounter.position, ".", ChangeCounter.token)), {})


async def read_pages(
    connection: AsyncConnection, pages: Sequence[TextQuery]
) -> "list[EncodedRows]":
    """The products that statements of ``page`` find.

    Of more than ``queries.PAGE_BYTES`` only as many as fit, and one more.
    """
    max_bytes = queries.PAGE_BYTES
    counted, *found = await read_texts(connection, _CHANGE, *pages, max_bytes=max_bytes)
    if not counted:
        raise no_counter()
    return [EncodedRows(ChangeId.parse(counted[0].decode()), texts) for texts in found]


class EncodedRows:
    """Products.

    Attributes:
        change: the last one that is included; so are all before it.
    """

    def __init__(self, change: ChangeId, texts: Sequence[bytes]) -> None:
        self.change = change
        self._texts = texts

    def __len__(self) -> int:
        """How many there are."""
        return len(self._texts)

    @property
    def most_bytes(self) -> int:
        """As ``Products``."""
        size = _BESIDES_TEXT * len(self._texts)
        length = sum(map(len, self._texts))
        if size + _LONGEST_ESCAPE * length > queries.PAGE_BYTES:
            return size + len(orjson.dumps(b"".join(self._texts).decode()))
        return size + _LONGEST_ESCAPE * length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One of them, ready to render."""
        texts = self._texts[index].decode().split(_SEPARATOR)
        product: dict[str, Any] = dict(zip(FIELDS, texts, strict=True))
        description = product["description"]
        product["description"] = description[1:] if description else None
        product["price"] = float(product["price"])
        for field in ("id", "user_id", "version"):
            product[field] = int(product[field])
        for field in _INSTANTS:
            product[field] = product[field].replace(" ", "T") + "Z"
        return product

    def json(self, count: int, fields: Sequence[str] | None = None) -> bytes:
        """The first so many, or as many as there are, as a JSON array.

        Args:
            count: how many at most.
            fields: what to show of each; None for everything.
        """
        count = min(count, len(self))
        width = len(FIELDS)
        texts = _escaped(b"\0".join(self._texts[:count]).decode()) if count else []
        texts[2::width] = [b'"%b"' % text[1:] if text else b"null" for text in texts[2::width]]
        for place in _INSTANT_PLACES:
            # All at once, which is quicker than one by one: in an instant nothing else is a space.
            instants = _SEPARATOR.encode().join(texts[place::width]).replace(b" ", b"T")
            texts[place::width] = instants.split(_SEPARATOR.encode())[:count]
        # As the JSON library writes doubles, and not as the database does.
        prices = orjson.dumps(list(map(float, texts[3::width])))[1:-1]
        texts[3::width] = prices.split(b",") if count else []
        if fields is not None:
            chosen = [b""] * (count * len(fields))
            for place, field in enumerate(fields):
                chosen[place :: len(fields)] = texts[FIELDS.index(field) :: width]
            texts = chosen
        return _template(tuple(FIELDS if fields is None else fields), count) % tuple(texts)


def _escaped(text: str) -> list[bytes]:
    """Values as they stand in JSON, without quotes."""
    if "\\" in text:
        # A NUL that is escaped could not be told from one that somebody has written like that.
        return [orjson.dumps(each)[1:-1] for each in text.split(_SEPARATOR)]
    return orjson.dumps(text)[1:-1].split(b"\\u0000")


# Numbers, and what has its quotes already unless it is null.
_BARE = {"id", "price", "user_id", "version", "description"}

_TEXT = '"%b"'

_DESCRIPTION = FIELDS.index("description")
_INSTANTS = ("created_at", "updated_at")
_INSTANT_PLACES = tuple(map(FIELDS.index, _INSTANTS))


@lru_cache(64)
def _template(fields: tuple[str, ...], count: int) -> bytes:
    forms = {**dict.fromkeys(_BARE, "%b"), **dict.fromkeys(_INSTANTS, '"%bZ"')}
    members = (f'"{name}":{forms.get(name, _TEXT)}' for name in fields)
    product = "{" + ",".join(members) + "}"
    return f"[{','.join([product] * count)}]".encode()
