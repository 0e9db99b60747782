"""A page of products as one cell, and out of it again.

On the servers, taking a page's rows apart costs the driver twice of what reading them costs the
database: every value is a step in Python. So the database joins all values into one text, with a
NUL behind each, which no value can hold, and JSON is made of that as a whole. The text also tells
the position, from the same snapshot, so that a page takes one trip.

SQLite's driver is written in C and has no need of it.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, String, func, literal_column, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from catalog.products import queries
from catalog.products.models import ChangeCounter
from catalog.products.queries import FIELDS
from catalog.products.schemas import Sort

MAX_PACKED = 201
"""Products of the longest page that is packed. With the longest texts that is 13 MiB: MariaDB makes
no text of more than 16 MiB unless told otherwise, and ``db.engines`` lets a cell be as long."""

_SEPARATOR = "\0"
_NUL: ColumnElement[str] = literal_column("0x00")


class _joined(FunctionElement[str]):  # noqa: N801 (reads as the SQL function that it is)
    """The texts of all rows in an order, one behind the other: ``GROUP_CONCAT``."""

    type = String()
    inherit_cache = True

    def __init__(self, text: ColumnElement[str], *order: ColumnElement[Any]) -> None:
        super().__init__(text, *order)


@compiles(_joined, "mysql")
def _joined_mysql(element: _joined, compiler: SQLCompiler, **kw: Any) -> str:
    text, *order = (compiler.process(each, **kw) for each in element.clauses)
    return f"GROUP_CONCAT({text} ORDER BY {', '.join(order)} SEPARATOR '')"


@cache
def page(*, sort: Sort, filters: frozenset[str], resumed: bool) -> Select[Any]:
    """``queries.page``, but one row with one cell."""
    found = queries.page(sort=sort, filters=filters, resumed=resumed)
    # Of the only column that may be null, null is empty and a text has a letter before it.
    texts = [
        func.ifnull(func.concat("=", column), "") if column.key == "description" else column
        for column in queries.COLUMNS
    ]
    # Each row ends with a NUL, so that what is cut off is noticed wherever that is. They are joined
    # in here, where the columns need not be put into a table of their own.
    row = func.concat_ws(_NUL, *texts, "").label("row_text")
    keys = [column for column in queries.COLUMNS if column.key in {"id", sort.removeprefix("-")}]
    rows = found.with_only_columns(row, *keys).subquery("page")
    joined = _joined(rows.c.row_text, *queries.order_of(sort, rows.columns))
    position = select(ChangeCounter.position).scalar_subquery()
    return select(func.concat_ws(_NUL, position, func.count(), joined)).select_from(rows)


class Packed:
    """The products of a cell.

    Attributes:
        position: that of the last change before they were read.
    """

    def __init__(self, cell: str) -> None:
        position, count, *texts = cell.split(_SEPARATOR, 2)
        self.position = int(position)
        self._count = int(count)
        self._text = texts[0] if texts else ""

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One of them, ready to render."""
        width = len(FIELDS)
        texts = self._text.split(_SEPARATOR, (index + 1) * width)[index * width :]
        product: dict[str, Any] = dict(zip(FIELDS, texts, strict=False))
        description = product["description"]
        product["description"] = description[1:] if description else None
        product["price"] = float(product["price"])
        for field in ("id", "user_id", "version"):
            product[field] = int(product[field])
        return product

    def json(self, count: int, fields: Sequence[str] | None = None) -> bytes:
        """The first so many, or as many as there are, as a JSON array.

        Args:
            count: how many at most.
            fields: what to show of each; None for everything.
        """
        count = min(count, self._count)
        width = len(FIELDS)
        texts = _escaped(self._text)[: count * width]
        texts[2::width] = [b'"%b"' % text[1:] if text else b"null" for text in texts[2::width]]
        # As the JSON library writes doubles, and not as the database does.
        prices = orjson.dumps(list(map(float, texts[3::width])))[1:-1]
        texts[3::width] = prices.split(b",") if count else []
        if fields is not None:
            chosen = [b""] * (count * len(fields))
            for place, field in enumerate(fields):
                chosen[place :: len(fields)] = texts[FIELDS.index(field) :: width]
            texts = chosen
        return _template(tuple(FIELDS if fields is None else fields), count) % tuple(texts)


def unpack(cell: str | None) -> Packed | None:
    """What a cell holds; None if the server has cut it off, or found it too long to be made."""
    if cell is None:
        return None
    packed = Packed(cell)
    complete = cell.count(_SEPARATOR) == 1 + len(packed) * len(FIELDS) + bool(len(packed))
    return packed if complete else None


def _escaped(text: str) -> list[bytes]:
    """The values in a cell as they stand in JSON, without quotes."""
    if "\\" in text:
        # A NUL that is escaped could not be told from one that somebody has written like that.
        return [orjson.dumps(each)[1:-1] for each in text.split(_SEPARATOR)]
    return orjson.dumps(text)[1:-1].split(b"\\u0000")


# Numbers, and what has its quotes already unless it is null.
_BARE = {"id", "price", "user_id", "version", "description"}


@lru_cache(64)
def _template(fields: tuple[str, ...], count: int) -> bytes:
    members = (f'"{name}":' + ("%b" if name in _BARE else '"%b"') for name in fields)
    product = "{" + ",".join(members) + "}"
    return f"[{','.join([product] * count)}]".encode()
