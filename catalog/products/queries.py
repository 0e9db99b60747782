"""SELECT statements on products: pages, counts and searches of a ``Selection``."""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, String, bindparam, func, select, type_coerce

from catalog.db.columns import Id, byte_length, rfc3339
from catalog.db.fulltext import OrderedJoin, matches
from catalog.db.keyset import above, below
from catalog.products.models import Product, ProductWords
from catalog.products.schemas import Sort
from catalog.products.selection import CONDITIONS

_table = Product.__table__.c
_words = ProductWords.__table__.c

COLUMNS = (
    _table.id,
    _table.name,
    _table.description,
    _table.price,
    _table.client_key.label("key"),
    _table.user_id,
    _table.version,
    rfc3339(_table.created_at).label("created_at"),
    rfc3339(_table.updated_at).label("updated_at"),
)
"""Columns of a rendered product; a page needs no ORM entities."""

FIELDS = tuple(column.key for column in COLUMNS)
"""Names of ``COLUMNS``, in the same order, which is that of the JSON members, on which
``product_encoding`` relies; ``service`` repeats the order for new products."""


def members_of(row: Sequence[Any]) -> dict[str, Any]:
    """Return the JSON members of a product, from a row with the values of ``FIELDS``."""
    return dict(zip(FIELDS, row, strict=True))


PAGE_BYTES = 1024 * 1024
"""Maximum size of the products of a page, unless it has only one. The longest product takes a tenth
of it; rendering this much blocks the event loop for about five milliseconds."""

FEW_ROWS = 100
"""Rows up to which no size bound is used: computing the lengths in the database takes longer than
reading short rows. It equals the default page size, so most pages need no bound."""

CACHED_SEARCHES = 512
"""Statements of searches that are cached: clients could ask for tens of thousands of shapes."""


@cache
def page(*, sort: Sort, filters: frozenset[str], resumed: bool) -> Select[Any]:
    """Build the statement for a page of a selection without terms.

    Its parameters are the selection's, those of the keyset position, and ``limit``. It seeks by
    key instead of using OFFSET, so that a page costs the same at any depth. It is cached per shape,
    because building it costs a quarter of what running it does.

    Args:
        sort: the selection's sort order.
        filters: the names of the selection's filters.
        resumed: whether the page resumes after a position instead of beginning at the start.
    """
    statement = select(*COLUMNS).where(*_conditions(filters))
    if resumed:
        statement = statement.where(_behind(sort, _table.id, "after"))
    if has_index(sort, filters):
        statement = _by_index(statement, sort, filters)
    return _in_order(statement, sort, _table.id).limit(bindparam("limit", type_=Integer))


@cache
def bounded_page(*, sort: Sort, filters: frozenset[str], resumed: bool) -> Select[Any]:
    """Build the statement of ``page`` with a size bound, its parameter ``max_bytes``."""
    rows = page(sort=sort, filters=filters, resumed=resumed).with_only_columns(_table.id)
    return _in_order(_bounded(rows, sort), sort, _table.id)


SEARCHED = ("name", "description")
"""Fields whose words are indexed."""

TEXT_BYTES: ColumnElement[int] = func.coalesce(byte_length(_table.name), 0) + func.coalesce(
    byte_length(_table.description), 0
)
"""Bytes of a product's texts; less than those of its JSON."""


def text_bytes(*texts: str | None) -> int:
    """Compute ``TEXT_BYTES`` of a product from its texts."""
    return sum(len(text.encode()) for text in texts if text)


def _bounded(rows: Select[Any], sort: Sort) -> Select[Any]:
    """Select the products of some ids until they exceed ``max_bytes``; in no order.

    The product that exceeds the bound is included.

    Args:
        rows: the ids, each as ``id``.
        sort: the order in which the sizes are summed up.
    """
    some = rows.subquery("some")
    order = _order_by(sort, _table.id)
    before = func.sum(TEXT_BYTES).over(order_by=order, rows=(None, -1))
    sized = select(_table.id, before.label("bytes_before")).join(some, some.c.id == _table.id)
    sizes = sized.subquery("sized")
    return (
        select(*COLUMNS)
        .join(sizes, sizes.c.id == _table.id)
        .where(
            func.coalesce(sizes.c.bytes_before, 0)
            <= bindparam("max_bytes", PAGE_BYTES, type_=Integer)
        )
    )


@cache
def count(*, filters: frozenset[str]) -> Select[Any]:
    """Build the statement that counts a selection without terms, from the selection's values."""
    return select(func.count()).select_from(Product.__table__).where(*_conditions(filters))


def has_index(sort: Sort, filters: frozenset[str]) -> bool:
    """Return whether an index range holds exactly a selection's products, in its sort order."""
    return filters <= _SERVED.get(sort.removeprefix("-"), frozenset())


@lru_cache(maxsize=CACHED_SEARCHES)
def found(
    *,
    sort: Sort,
    filters: frozenset[str],
    resumed: bool,
    terms: int,
    indexed: int,
    bounded: bool,
) -> Select[Any]:
    """Build the statement for a page of a selection with terms; parameters as ``bounded_page``.

    The products' rows are read last, and only those of the page.

    Args:
        sort: the selection's sort order.
        filters: the names of the selection's filters.
        resumed: whether the page resumes after a position instead of beginning at the start.
        terms: the number of terms.
        indexed: the number of terms that are looked up in the full-text index, in the parameter
            ``sought``; the others are checked on the rows that it finds. 0 for a scan: one product
            after the other, in sort order. The results are equal.
        bounded: whether the search ends before the position ``edge``.
    """
    # Sorted by id and without filters, the words table alone is enough.
    alone = sort.removeprefix("-") == "id" and not filters
    row_id = _words.rowid if alone else _table.id
    rows = select(row_id.label("id")).where(*_searched(terms, indexed))
    if not alone:
        rows = _joined(rows, words_first=indexed > 0).where(*_conditions(filters))
    if resumed:
        rows = rows.where(_behind(sort, row_id, "after"))
    if bounded:
        rows = rows.where(_behind(sort, row_id, "edge", before=True))
        if not indexed and not alone:
            rows = _by_index(rows, sort, filters)
    some = _in_order(rows, sort, row_id).limit(bindparam("limit", type_=Integer))
    return _in_order(_bounded(some, sort), sort, _table.id)


@lru_cache(maxsize=CACHED_SEARCHES)
def count_found(*, filters: frozenset[str], terms: int, indexed: int) -> Select[Any]:
    """Build the statement that counts a selection with terms; parameters as ``found``."""
    rows = select(func.count()).where(*_searched(terms, indexed))
    if not filters:
        return rows.select_from(ProductWords.__table__)
    return _joined(rows, words_first=indexed > 0).where(*_conditions(filters))


@cache
def counts(searches: int) -> Select[Any]:
    """Build the statement that counts the products of searches, ``sought_0`` and so on."""
    return select(
        *(
            select(func.count()).where(matches(_words.words, f"sought_{number}")).scalar_subquery()
            for number in range(searches)
        )
    )


@cache
def sample(*, terms: int) -> Select[Any]:
    """Build the statement that counts, term by term, the ``limit`` products up to ``last_id``."""
    some = (
        select(_words.words)
        .where(_words.rowid <= bindparam("last_id", type_=Id))
        .order_by(_words.rowid.desc())
        .limit(bindparam("limit", type_=Integer))
        .subquery("some")
    )
    columns: list[ColumnElement[Any]] = [func.count()]
    for number in range(terms):
        # As a sum of booleans, SQLAlchemy would return it as a boolean.
        hit = type_coerce(_has(some.c.words, number), Integer)
        columns.append(func.coalesce(func.sum(hit), 0))
    return select(*columns)


@cache
def edge(*, sort: Sort, filters: frozenset[str], resumed: bool) -> Select[Any]:
    """Build the statement for the position ``distance`` products after a position or the start."""
    key = _table[sort.removeprefix("-")]
    statement: Select[Any] = select(key.label("key"), _table.id).where(*_conditions(filters))
    if resumed:
        statement = statement.where(_behind(sort, _table.id, "after"))
    statement = _in_order(_by_index(statement, sort, filters), sort, _table.id)
    return statement.limit(1).offset(bindparam("distance", type_=Integer))


@cache
def id_range(*, sort: Sort, resumed: bool) -> Select[Any]:
    """Build the statement for the range of ids before the position ``edge``, without filters."""
    statement: Select[Any] = select(
        func.min(_table.id).label("first"), func.max(_table.id).label("last")
    ).where(_behind(sort, _table.id, "edge", before=True))
    if resumed:
        statement = statement.where(_behind(sort, _table.id, "after"))
    return _by_index(statement, sort, frozenset())


IDS = select(func.min(_table.id).label("first"), func.max(_table.id).label("last"))
"""The range of ids: an estimate of the number of products."""


@cache
def some(*, filters: frozenset[str]) -> Select[Any]:
    """Build the statement that counts a selection without its terms, up to ``limit``."""
    rows = select(_table.id).where(*_conditions(filters)).limit(bindparam("limit", type_=Integer))
    return select(func.count()).select_from(rows.subquery())


_SERVED = {"id": frozenset({"user_id"}), "price": frozenset({"min_price", "max_price"})}
"""Filters that an index serves together with the sort order, by sort column."""


def _conditions(filters: frozenset[str]) -> Iterator[ColumnElement[bool]]:
    return (CONDITIONS[name] for name in sorted(filters))


def _searched(terms: int, indexed: int) -> Iterator[ColumnElement[bool]]:
    if indexed:
        yield matches(_words.words, "sought")
    for number in range(indexed, terms):
        yield _has(_words.words, number)


def _has(words: ColumnElement[str], number: int) -> ColumnElement[bool]:
    """Return the condition that words have a term.

    It is a prefix match, as in the index: a term begins with the mark, which occurs only at the
    beginning of a word.
    """
    return func.instr(words, bindparam(f"term_{number}", type_=String)) > 0


def _joined(rows: Select[Any], *, words_first: bool) -> Select[Any]:
    """Join products and their words in a fixed join order."""
    tables = (Product.__table__, ProductWords.__table__)
    first, second = reversed(tables) if words_first else tables
    joined: Select[Any] = rows.select_from(OrderedJoin(first, second, _words.rowid == _table.id))
    return joined.prefix_with("STRAIGHT_JOIN", dialect="mysql")


def _by_index(statement: Select[Any], sort: Sort, filters: frozenset[str]) -> Select[Any]:
    """Force the index of the sort order: the servers may estimate that a sort is cheaper."""
    key = sort.removeprefix("-")
    name = f"ix_products_{key}_id"
    if key == "id":
        name = "ix_products_user_id_id" if "user_id" in filters else "PRIMARY"
    return statement.with_hint(Product.__table__, f"FORCE INDEX ({name})", "mysql")


def _behind(
    sort: Sort, row_id: ColumnElement[int], place: str, *, before: bool = False
) -> ColumnElement[bool]:
    """Return the condition that a product lies after a keyset position, or before it.

    Its parameters are the position's key and id, with ``place`` as their prefix.
    """
    descends = sort.startswith("-") != before
    key = _table[sort.removeprefix("-")]
    if key is _table.id:
        place_id = bindparam(f"{place}_id", type_=Id)
        return row_id < place_id if descends else row_id > place_id
    return (below if descends else above)(key, row_id, place)


def _in_order(statement: Select[Any], sort: Sort, row_id: ColumnElement[int]) -> Select[Any]:
    return statement.order_by(*_order_by(sort, row_id))


def _order_by(sort: Sort, row_id: ColumnElement[int]) -> list[ColumnElement[Any]]:
    """Order by the sort column, then by id in the same direction, so that one index serves both."""
    key = _table[sort.removeprefix("-")]
    columns = [row_id] if key is _table.id else [key, row_id]
    descends = sort.startswith("-")
    return [each.desc() if descends else each.asc() for each in columns]


_product_ids = bindparam("product_ids", type_=Id, expanding=True)

SOME_IDS = select(_table.id).where(_table.id.in_(_product_ids))
"""Products among ``product_ids`` that exist."""

SOME = select(*COLUMNS).where(_table.id.in_(_product_ids)).order_by(_table.id)
"""Products by ``product_ids``."""

LOCK_WAITING = SOME.with_for_update(of=Product.__table__)
"""``SOME``, with row locks until the transaction ends; waits for those of other transactions."""

LOCK_SKIPPING = SOME.with_for_update(of=Product.__table__, skip_locked=True)
"""``LOCK_WAITING``, but skips the products that other transactions have locked."""
