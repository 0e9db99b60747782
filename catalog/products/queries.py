"""SELECTs on products, built but not run: filters, orders, and pages by key."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, ClassVar, Self
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, Integer, Select, String, bindparam, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from catalog.db.columns import Id, rfc3339
from catalog.db.fulltext import matches
from catalog.products.models import Product, ProductWords
from catalog.products.schemas import DEFAULT_SORT, MyListQuery, Sort
from catalog.products.search.tokenizer import terms_of

_table = Product.__table__.c
_words = ProductWords.__table__.c

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

PAGE_BYTES = 1024 * 1024
"""What the products of a page take at most, unless it is one alone. The longest takes a tenth of
it, and to render this much keeps the event loop for some five milliseconds."""

FEW_ROWS = 100
"""Rows that are read without asking the database how long they are, which takes longer than to read
them where they are short. The default of a page, so that most pages are."""

INDEXED_TERMS = 4
"""Terms that the index is asked for; whether the others are there, too, is seen in the rows."""

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
        terms: what words of them must begin with, as ``words.terms_of`` makes it of a search.
    """

    sort: Sort = DEFAULT_SORT
    min_price: float | None = None
    max_price: float | None = None
    user_id: int | None = None
    ids: tuple[int, ...] | None = None
    terms: tuple[str, ...] = ()

    @classmethod
    def of(cls, query: MyListQuery, *, user_id: int | None) -> Self:
        """What a client asks for, of one owner or of all."""
        return cls(
            sort=query.sort,
            min_price=query.min_price,
            max_price=query.max_price,
            user_id=user_id,
            ids=query.ids,
            terms=terms_of(query.q) if query.q is not None else (),
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
        values = {name: getattr(self, name) for name in self.filters}
        values |= {f"term_{number}": term for number, term in enumerate(self.ranked_terms)}
        return values

    @property
    def ranked_terms(self) -> tuple[str, ...]:
        """The terms, those first that most likely few products have."""
        return tuple(sorted(self.terms, key=len, reverse=True))

    def sought_in(self, buckets: Sequence[str]) -> list[list[str]]:
        """What ``matches`` takes to look for the terms in some buckets."""
        indexed = self.ranked_terms[:INDEXED_TERMS]
        return [[f"{bucket}{term}" for bucket in buckets] for term in indexed]

    def bound_to(self, path: str) -> str:
        """What a cursor of this selection is bound to, under a list's path."""
        filters = {name: getattr(self, name) for name in sorted(self.filters)}
        if self.terms:
            filters["terms"] = self.terms
        return f"{path}?{urlencode({'sort': self.sort, **filters})}"

    def position_of(self, product: dict[str, Any]) -> Position:
        """The place of a product that is ready to render."""
        return (product["id"],) if self.key == "id" else (product[self.key], product["id"])

    def values_after(self, position: Position | None) -> dict[str, Any]:
        """What a statement takes that goes on behind a place; nothing at the start."""
        if position is None:
            return {}
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

    Args:
        key: the first column.
        row_id: the second one.
        place: the parameters' common beginning.
    """

    # No type: of a Boolean, the compiler would ask whether it is 1, and no engine seeks then.
    inherit_cache = True
    operator: ClassVar[str]

    def __init__(self, key: ColumnElement[Any], row_id: ColumnElement[int], place: str) -> None:
        super().__init__(
            key,
            row_id,
            bindparam(f"{place}_key", type_=key.type),
            bindparam(f"{place}_id", type_=row_id.type),
        )


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
    """A page of a selection without terms; takes its values, those of the place, and ``limit``.

    Seeks to its place by key instead of counting rows from the start, so that a page costs the
    same at any depth. Built once for each shape, because building it costs a quarter of what
    running it does.

    Args:
        sort: the selection's order.
        filters: the names of the selection's filters.
        resumed: whether it goes on behind a place, and does not begin at the start.
    """
    statement = select(*COLUMNS).where(*_kept(filters))
    if resumed:
        statement = statement.where(_behind(sort, _table.id, "after"))
    if has_index(sort, filters):
        statement = _by_index(statement, sort, filters)
    return _in_order(statement, sort, _table.id).limit(bindparam("limit", type_=Integer))


@cache
def bounded_page(*, sort: Sort, filters: frozenset[str], resumed: bool) -> Select[Any]:
    """``page``, but no longer than ``max_bytes``, which it takes besides."""
    rows = page(sort=sort, filters=filters, resumed=resumed).with_only_columns(_table.id)
    return _in_order(_bounded(rows, sort), sort, _table.id)


class _Bytes(FunctionElement[int]):
    """How many bytes a text takes."""

    type = Integer()
    inherit_cache = True


@compiles(_Bytes, "sqlite")
def _bytes_sqlite(element: _Bytes, compiler: SQLCompiler, **kw: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"


@compiles(_Bytes, "mysql")
def _bytes_mysql(element: _Bytes, compiler: SQLCompiler, **kw: Any) -> str:
    return f"OCTET_LENGTH({compiler.process(element.clauses, **kw)})"


TEXT_BYTES: ColumnElement[int] = func.coalesce(_Bytes(_table.name), 0) + func.coalesce(
    _Bytes(_table.description), 0
)
"""What a product's texts take, which is less than its JSON does."""


def _bounded(rows: Select[Any], sort: Sort) -> Select[Any]:
    """The products of some ids, as many as take ``max_bytes`` and one more; in no order.

    Args:
        rows: the ids, each as ``id``.
        sort: the order in which products count.
    """
    some = rows.subquery("some")
    order = _in_order(select(_table.id), sort, _table.id)._order_by_clauses
    before = func.sum(TEXT_BYTES).over(order_by=order, rows=(None, -1))
    sized = select(_table.id, before.label("bytes_before")).join(some, some.c.id == _table.id)
    kept = sized.subquery("sized")
    return (
        select(*COLUMNS)
        .join(kept, kept.c.id == _table.id)
        .where(
            func.coalesce(kept.c.bytes_before, 0)
            <= bindparam("max_bytes", PAGE_BYTES, type_=Integer)
        )
    )


@cache
def count(*, filters: frozenset[str]) -> Select[Any]:
    """How many products a selection without terms has; takes its values."""
    return select(func.count()).select_from(Product.__table__).where(*_kept(filters))


def has_index(sort: Sort, filters: frozenset[str]) -> bool:
    """Whether an index has a selection's products, and no others, in its order."""
    return filters <= _SERVED.get(sort.removeprefix("-"), frozenset())


class Plan(Enum):
    """How a search finds products; what is found is the same."""

    INDEX = "what the full-text index has, put in order"
    SCAN = "one product after the other"


@cache
def found(
    *,
    sort: Sort,
    filters: frozenset[str],
    resumed: bool,
    terms: int,
    plan: Plan,
    bounded: bool,
) -> Select[Any]:
    """A page of a selection with terms; takes what ``bounded_page`` does.

    The products' own rows are read last, and only those of the page.

    Args:
        sort: the selection's order.
        filters: the names of the selection's filters.
        resumed: whether it goes on behind a place, and does not begin at the start.
        terms: how many.
        plan: how to find them; the index takes ``sought``.
        bounded: whether it ends before a place, ``edge``.
    """
    # In the order of ids, the table of words is all that it takes.
    alone = sort.removeprefix("-") == "id" and not filters
    row_id = _words.rowid if alone else _table.id
    rows = select(row_id.label("id")).where(*_searched(terms, plan))
    if not alone:
        rows = _joined(rows, words_first=plan is Plan.INDEX).where(*_kept(filters))
    if resumed:
        rows = rows.where(_behind(sort, row_id, "after"))
    if bounded:
        rows = rows.where(_behind(sort, row_id, "edge", before=True))
        if plan is Plan.SCAN and not alone:
            rows = _by_index(rows, sort, filters)
    some = _in_order(rows, sort, row_id).limit(bindparam("limit", type_=Integer))
    return _in_order(_bounded(some, sort), sort, _table.id)


@cache
def count_found(*, filters: frozenset[str], terms: int, plan: Plan) -> Select[Any]:
    """How many products a selection with terms has; takes its values, the index ``sought``."""
    rows = select(func.count()).where(*_searched(terms, plan))
    if not filters:
        return rows.select_from(ProductWords.__table__)
    return _joined(rows, words_first=plan is Plan.INDEX).where(*_kept(filters))


@cache
def edge(*, sort: Sort, filters: frozenset[str], resumed: bool) -> Select[Any]:
    """The place that comes ``distance`` products behind another one, or behind the start."""
    key = _table[sort.removeprefix("-")]
    statement: Select[Any] = select(key.label("key"), _table.id).where(*_kept(filters))
    if resumed:
        statement = statement.where(_behind(sort, _table.id, "after"))
    statement = _in_order(_by_index(statement, sort, filters), sort, _table.id)
    return statement.limit(1).offset(bindparam("distance", type_=Integer))


IDS = select(func.min(_table.id).label("first"), func.max(_table.id).label("last"))
"""The range of ids, which tells about how many products there are."""


@cache
def some(*, filters: frozenset[str]) -> Select[Any]:
    """How many products a selection has without its terms, counted up to ``limit``."""
    rows = select(_table.id).where(*_kept(filters)).limit(bindparam("limit", type_=Integer))
    return select(func.count()).select_from(rows.subquery())


_SERVED = {"id": frozenset({"user_id"}), "price": frozenset({"min_price", "max_price"})}
"""The filters that leave the products in the order of an index, by the column of the sort."""


def _kept(filters: frozenset[str]) -> Iterator[ColumnElement[bool]]:
    return (_CONDITIONS[name] for name in sorted(filters))


def _searched(terms: int, plan: Plan) -> Iterator[ColumnElement[bool]]:
    first = 0
    if plan is Plan.INDEX:
        yield matches(_words.words, "sought")
        first = INDEXED_TERMS
    for number in range(first, terms):
        # As the index means it: a term begins with the mark, which stands only where a word begins.
        yield func.instr(_words.words, bindparam(f"term_{number}", type_=String)) > 0


def _joined(rows: Select[Any], *, words_first: bool) -> Select[Any]:
    """Products and their words; the servers are told which of the two to begin with."""
    tables = (Product.__table__, ProductWords.__table__)
    first, second = reversed(tables) if words_first else tables
    joined: Select[Any] = rows.select_from(first.join(second, _words.rowid == _table.id))
    # For the servers alone: SQLite has no other word for it than another kind of join.
    return joined.prefix_with("STRAIGHT_JOIN", dialect="mysql")


def _by_index(statement: Select[Any], sort: Sort, filters: frozenset[str]) -> Select[Any]:
    """Tell the servers to read in order, which they may hold for dearer than to sort."""
    key = sort.removeprefix("-")
    name = f"ix_products_{key}_id"
    if key == "id":
        name = "ix_products_user_id_id" if "user_id" in filters else "PRIMARY"
    return statement.with_hint(Product.__table__, f"FORCE INDEX ({name})", "mysql")


def _behind(
    sort: Sort, row_id: ColumnElement[int], place: str, *, before: bool = False
) -> ColumnElement[bool]:
    """Whether a product stands behind a place in an order, or before it; takes its key and id."""
    below = sort.startswith("-") != before
    key = _table[sort.removeprefix("-")]
    if key is _table.id:
        place_id = bindparam(f"{place}_id", type_=Id)
        return row_id < place_id if below else row_id > place_id
    return (_Below if below else _Above)(key, row_id, place)


def _in_order(statement: Select[Any], sort: Sort, row_id: ColumnElement[int]) -> Select[Any]:
    """Order by the sort's column, and by ids, in the same direction, so that one index does."""
    key = _table[sort.removeprefix("-")]
    columns = [row_id] if key is _table.id else [key, row_id]
    descends = sort.startswith("-")
    return statement.order_by(*(each.desc() if descends else each.asc() for each in columns))


ONE = select(*COLUMNS).where(_table.id == bindparam("product_id", type_=Id))
"""A product; takes ``product_id``."""

ONE_LOCKED = ONE.with_for_update(of=Product.__table__)
"""The same, nobody else's to change until the transaction ends."""
