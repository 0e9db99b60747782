"""SELECTs on products, built but not run: filters, orders, and pages by key."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Self
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, Integer, Select, bindparam, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from catalog.db.columns import Id, rfc3339
from catalog.products.models import Product
from catalog.products.schemas import DEFAULT_SORT, MyListQuery, Sort

_table = Product.__table__.c

COLUMNS = (
    _table.id,
    _table.name,
    _table.description,
    _table.price,
    _table.user_id,
    _table.version,
    rfc3339(_table.created_at).label("created_at"),
    rfc3339(_table.updated_at).label("updated_at"),
)
"""What a rendered product is made of: plain columns, because a page needs no entities."""

FIELDS = tuple(column.key for column in COLUMNS)
"""The names of the same, in the same order."""

Position = tuple[int | float | str, ...]
"""A place in an order: what a product shows of the sort's column, and its id; the id alone where
it is that column. The product need not exist any more."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which products, in which order.

    Attributes:
        sort: a column's name, with ``-`` before it for the other direction.
        min_price: the lowest price.
        max_price: the highest price.
        user_id: whose they are.
        ids: which ones, at most; in no order.
    """

    sort: Sort = DEFAULT_SORT
    min_price: float | None = None
    max_price: float | None = None
    user_id: int | None = None
    ids: tuple[int, ...] | None = None

    @classmethod
    def of(cls, query: MyListQuery, *, user_id: int | None) -> Self:
        """What a client asks for, of one owner or of all."""
        return cls(
            sort=query.sort,
            min_price=query.min_price,
            max_price=query.max_price,
            user_id=user_id,
            ids=query.ids,
        )

    @property
    def key(self) -> str:
        """The column that they are sorted by."""
        return self.sort.removeprefix("-")

    @property
    def filters(self) -> frozenset[str]:
        """The names of the filters that are set."""
        return frozenset(name for name in _CONDITIONS if getattr(self, name) is not None)

    @property
    def values(self) -> dict[str, Any]:
        """What the statements of this selection take."""
        return {name: getattr(self, name) for name in self.filters}

    def bound_to(self, path: str) -> str:
        """What a cursor of this selection is bound to, under a list's path."""
        return f"{path}?{urlencode({'sort': self.sort, **dict(sorted(self.values.items()))})}"

    def position_of(self, product: dict[str, Any]) -> Position:
        """The place of a product that is ready to render."""
        return (product["id"],) if self.key == "id" else (product[self.key], product["id"])

    def values_after(self, position: Position) -> dict[str, Any]:
        """What a statement takes that goes on behind a place."""
        if self.key == "id":
            return {"after_id": position[-1]}
        key, product_id = position
        after = datetime.fromisoformat(str(key)) if self.key == "created_at" else key
        return {"after_key": after, "after_id": product_id}


_CONDITIONS: Mapping[str, ColumnElement[bool]] = {
    "min_price": _table.price >= bindparam("min_price", type_=_table.price.type),
    "max_price": _table.price <= bindparam("max_price", type_=_table.price.type),
    "user_id": _table.user_id == bindparam("user_id", type_=Id),
    "ids": _table.id.in_(bindparam("ids", type_=Id, expanding=True)),
}
"""What each filter of a ``Selection`` asks of a product."""


class _Beyond(FunctionElement[bool]):
    """Whether a row stands behind a place in an order of two columns.

    The servers seek to the place only when it is put as ranges, SQLite only when the columns are
    compared as one.
    """

    # No type: of a Boolean, the compiler would ask whether it is 1, and no engine seeks then.
    inherit_cache = True
    operator: ClassVar[str]

    def __init__(self, key: ColumnElement[Any], row_id: ColumnElement[int]) -> None:
        place = bindparam("after_key", type_=key.type), bindparam("after_id", type_=row_id.type)
        super().__init__(key, row_id, *place)


class _Above(_Beyond):
    inherit_cache = True
    operator = ">"


class _Below(_Beyond):
    inherit_cache = True
    operator = "<"


@compiles(_Beyond, "sqlite")
def _beyond_sqlite(element: _Beyond, compiler: SQLCompiler, **kw: Any) -> str:
    key, row_id, after_key, after_id = (compiler.process(each, **kw) for each in element.clauses)
    return f"({key}, {row_id}) {element.operator} ({after_key}, {after_id})"


@compiles(_Beyond, "mysql")
def _beyond_mysql(element: _Beyond, compiler: SQLCompiler, **kw: Any) -> str:
    key, row_id, after_key, after_id = (compiler.process(each, **kw) for each in element.clauses)
    beyond = element.operator
    same = f"{key} = {after_key} AND {row_id} {beyond} {after_id}"
    return f"({key} {beyond} {after_key} OR ({same}))"


@cache
def page(*, sort: Sort, filters: frozenset[str], resumed: bool) -> Select[Any]:
    """A page of a selection; takes ``limit``, and the values of the selection and of the place.

    Seeks to its place by key instead of counting rows from the start, so that a page costs the
    same at any depth. Built once for each shape, because building it costs a quarter of what
    running it does.

    Args:
        sort: the selection's order.
        filters: the names of the selection's filters.
        resumed: whether it goes on behind a place, and does not begin at the start.
    """
    descends = sort.startswith("-")
    key = _table[sort.removeprefix("-")]
    # The id breaks ties, and it goes the same way, so that one index serves both directions.
    order = [key] if key is _table.id else [key, _table.id]
    statement = select(*COLUMNS).where(*(_CONDITIONS[name] for name in sorted(filters)))
    if resumed and key is _table.id:
        after = bindparam("after_id", type_=Id)
        statement = statement.where(_table.id < after if descends else _table.id > after)
    elif resumed:
        statement = statement.where((_Below if descends else _Above)(key, _table.id))
    statement = statement.order_by(*(each.desc() if descends else each.asc() for each in order))
    return statement.limit(bindparam("limit", type_=Integer))


@cache
def count(*, filters: frozenset[str]) -> Select[Any]:
    """How many products a selection has; takes its values."""
    conditions = (_CONDITIONS[name] for name in sorted(filters))
    return select(func.count()).select_from(Product.__table__).where(*conditions)


ONE = select(*COLUMNS).where(_table.id == bindparam("product_id", type_=Id))
"""A product; takes ``product_id``."""

ONE_LOCKED = ONE.with_for_update(of=Product.__table__)
"""The same, nobody else's to change until the transaction ends."""
