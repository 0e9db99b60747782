"""A page of products as one cell, and out of it again.

On the servers, taking a page's rows apart costs the driver twice of what reading them costs the
database: every value is a step in Python. So the database joins all values into one text, with a
NUL behind each, which no value can hold, and Python's own routines divide it. The text also tells
the position, from the same snapshot, so that a page takes one trip.

SQLite's driver is written in C and has no need of it.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, String, func, literal_column, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from catalog.products import queries
from catalog.products.models import ChangeCounter
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


class Unpacked(NamedTuple):
    """What a cell holds.

    Attributes:
        position: that of the last change before it was read.
        rows: the values of ``queries.FIELDS``, as the driver would give them.
    """

    position: int
    rows: Sequence[Sequence[Any]]


@cache
def page(*, sort: Sort, filters: frozenset[str], resumed: bool) -> Select[Any]:
    """``queries.page``, but one row with one cell."""
    found = queries.page(sort=sort, filters=filters, resumed=resumed).subquery("page")
    # Of the only column that may be null, null is empty and a text has a letter before it.
    texts = [
        func.ifnull(func.concat("=", column), "") if column.key == "description" else column
        for column in found.columns
    ]
    position = select(ChangeCounter.position).scalar_subquery()
    # Each row ends with a NUL, so that what is cut off is noticed wherever that is.
    row = func.concat_ws(_NUL, *texts, "")
    rows = _joined(row, *queries.order_of(sort, found.columns))
    return select(func.concat_ws(_NUL, position, func.count(), rows)).select_from(found)


def unpack(cell: str | None) -> Unpacked | None:
    """What a cell holds; None if the server has cut it off, or found it too long to be made."""
    if cell is None:
        return None
    position, count, *values = cell.split(_SEPARATOR)
    width = len(queries.FIELDS)
    length = int(count) * width
    if len(values) != length + bool(length):
        return None
    columns: list[Any] = [values[place:length:width] for place in range(width)]
    for place, field in enumerate(queries.FIELDS):
        if (convert := _CONVERTERS.get(field)) is not None:
            columns[place] = map(convert, columns[place])
    return Unpacked(int(position), list(zip(*columns, strict=True)))


def _text_or_none(text: str) -> str | None:
    return text[1:] if text else None


_CONVERTERS: dict[str, Any] = {
    "id": int,
    "description": _text_or_none,
    "price": float,
    "user_id": int,
    "version": int,
}
