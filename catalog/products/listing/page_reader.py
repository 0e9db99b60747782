"""Read pages of products, several in one round trip where the engine allows it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.raw_rows import TextQuery
from catalog.products import queries
from catalog.products.changes import change_log
from catalog.products.listing import row_encoding
from catalog.products.models import ChangeId
from catalog.products.queries import Position, Selection
from catalog.products.search import planner


class PageRows(Protocol):
    """PageRows that were read, in whatever form, with their fields in one order."""

    def __len__(self) -> int:
        """How many there are."""

    @property
    def most_bytes(self) -> int:
        """What they take as JSON, or more than that; soon found out."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One of them, ready to render."""

    def json(self, count: int, fields: Sequence[str] | None = None) -> bytes:
        """The first so many, or as many as there are, as a JSON array.

        Args:
            count: how many at most.
            fields: what to show of each; None for everything.
        """


_NAMES_BYTES = len(orjson.dumps(dict.fromkeys(queries.FIELDS)))


class DecodedRows:
    """PageRows as the values of ``queries.FIELDS``."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        """As ``PageRows``."""
        return len(self._rows)

    @property
    def most_bytes(self) -> int:
        """As ``PageRows``."""
        return len(orjson.dumps(list(map(tuple, self._rows)))) + _NAMES_BYTES * len(self)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """As ``PageRows``."""
        return dict(zip(queries.FIELDS, self._rows[index], strict=True))

    def json(self, count: int, fields: Sequence[str] | None = None) -> bytes:
        """As ``PageRows``."""
        products = map(self.__getitem__, range(min(count, len(self))))
        if fields is None:
            return orjson.dumps(list(products))
        return orjson.dumps([{name: product[name] for name in fields} for product in products])


class Page(NamedTuple):
    """A page, and perhaps some products more.

    Attributes:
        change: the last one that is included; so are all before it.
        products: in their order.
        size: how many of them are the page's.
        last: the place after which the next page begins; None if there is none.
        total: how many there are on all pages, where that was asked for.
    """

    change: ChangeId
    products: PageRows
    size: int
    last: Position | None
    total: int | None = None


class PageQuery(NamedTuple):
    """Which page to read.

    Attributes:
        selection: which products, in which order.
        after: the place behind which the page begins; None for the first page.
        limit: products on the page.
        total: whether to count those on all pages, too.
    """

    selection: Selection
    after: Position | None
    limit: int
    total: bool = False

    @property
    def is_light(self) -> bool:
        """Whether it is read in no time, so that others may wait for it."""
        return not self.selection.terms and not self.total and self.limit <= queries.FEW_ROWS


async def list_products(connection: AsyncConnection, *wanted: PageQuery) -> list[Page]:
    """Pages; on a server those without a search are read in one trip."""
    on_server = connection.dialect.name != "sqlite"

    def comes_as_texts(wanted: PageQuery) -> bool:
        return on_server and not wanted.selection.terms

    texts = [_text_question(each) for each in wanted if comes_as_texts(each)]
    together = iter(await row_encoding.read_pages(connection, texts) if texts else ())
    pages = []
    for each in wanted:
        selection, after, limit, _ = each
        products: PageRows
        if comes_as_texts(each):
            products = next(together)
            change = products.change
        else:
            change = await change_log.current_change(connection)
            rows = await read_rows(connection, selection=selection, after=after, limit=limit + 1)
            products = DecodedRows(rows)
        count = _fitting(products, limit)
        last = selection.position_of(products[count - 1]) if len(products) > count else None
        pages.append(Page(change, products, count, last, await _total(connection, each)))
    return pages


def _fitting(products: PageRows, limit: int) -> int:
    """How many products a page has: up to its limit, as many as fit, and one at least.

    They count whole, whatever fields are shown, so that all engines and forms of a page agree.
    """
    most = min(limit, len(products))
    if products.most_bytes <= queries.PAGE_BYTES:
        return most
    count = size = 0
    while count < most and size <= queries.PAGE_BYTES:
        size += len(orjson.dumps(products[count])) + 1
        count += 1
    return count if size <= queries.PAGE_BYTES else max(1, count - 1)


def _text_question(wanted: PageQuery) -> TextQuery:
    selection, after, limit, _ = wanted
    statement = row_encoding.page(
        sort=selection.sort,
        filters=selection.filters,
        resumed=after is not None,
        bounded=limit > queries.FEW_ROWS,
    )
    # One more than asked for tells whether there is a next page.
    return TextQuery(statement, _values(selection, after, limit + 1))


def _values(
    selection: Selection, after: Position | None, limit: int, max_bytes: int = queries.PAGE_BYTES
) -> dict[str, Any]:
    bounds = {"limit": limit, "max_bytes": max_bytes}
    return {**selection.values, **selection.values_after(after), **bounds}


async def _total(connection: AsyncConnection, wanted: PageQuery) -> int | None:
    if not wanted.total:
        return None
    selection = wanted.selection
    if selection.terms:
        return await planner.count(connection, selection)
    counted = queries.count(filters=selection.filters)
    total: int | None = await connection.scalar(counted, selection.values)
    return total


async def read_rows(
    connection: AsyncConnection,
    *,
    selection: Selection,
    after: Position | None,
    limit: int,
    max_bytes: int | None = None,
) -> Sequence[Sequence[Any]]:
    """PageRows of a selection behind a place, as the values of ``queries.FIELDS``.

    Args:
        connection: where to read.
        selection: which products, in which order.
        after: the place behind which they begin; None for the first ones.
        limit: how many at most.
        max_bytes: of their texts; the product that goes beyond it is the last. None for a page's,
            and for any length of only a few.
    """
    is_bounded = max_bytes is not None or limit > queries.FEW_ROWS + 1
    max_bytes = queries.PAGE_BYTES if max_bytes is None else max_bytes
    if selection.terms:
        return await planner.find(
            connection, selection, after=after, limit=limit, max_bytes=max_bytes
        )
    make = queries.bounded_page if is_bounded else queries.page
    statement = make(sort=selection.sort, filters=selection.filters, resumed=after is not None)
    values = _values(selection, after, limit, max_bytes)
    rows: Sequence[Any] = (await connection.execute(statement, values)).all()
    return rows
