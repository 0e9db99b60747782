"""Reader of product pages, several in one round trip where the engine allows it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.concurrency.turns import Turn
from catalog.db.columns import MAX_ID
from catalog.db.raw_rows import TextQuery, has_raw_rows
from catalog.db.read_connection import ReadConnection
from catalog.products import queries
from catalog.products.changes import change_counter
from catalog.products.changes.change_ids import ChangeId
from catalog.products.listing.encoded_rows import encoded_page, read_encoded_pages
from catalog.products.listing.page_request import PageRequest
from catalog.products.listing.page_rows import DecodedRows, PageRows
from catalog.products.search import planner
from catalog.products.selection import Position, Selection


class Page(NamedTuple):
    """Page, and possibly further products that do not belong to it.

    Attributes:
        change: the last change included in the page, with all before it.
        products: in sort order; the page is the first ``size`` of them.
        size: the number of products on the page.
        last: the keyset position after which the next page begins; None on the last page.
        total: the number of products on all pages, if it was requested.
        span: the ids of all products whose changes affect the page; None if any change may.
        settled_id: the id up to which creating products does not affect it.
    """

    change: ChangeId
    products: PageRows
    size: int
    last: Position | None
    total: int | None = None
    span: range | None = None
    settled_id: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether creating products does not affect the page."""
        return self.span is not None and self.span.stop <= self.settled_id + 1

    @property
    def precedes_settled(self) -> bool:
        """Whether the next page is settled."""
        if self.span is None or self.last is None:
            return False
        return int(self.last[-1]) <= self.settled_id


async def read_pages(connection: ReadConnection, requests: Sequence[PageRequest]) -> list[Page]:
    """Read pages; on a server, those without search terms in one round trip."""
    has_texts = has_raw_rows(connection)

    def comes_as_texts(request: PageRequest) -> bool:
        return has_texts and not request.selection.terms

    texts = [_text_query(each) for each in requests if comes_as_texts(each)]
    together = iter(await read_encoded_pages(connection, texts) if texts else ())
    pages = []
    # To tell how many long products fit on a page takes some ten milliseconds.
    turn = Turn() if len(requests) > 1 else None
    for each in requests:
        selection, after, limit = each.selection, each.after, each.query.limit
        products: PageRows
        if comes_as_texts(each):
            products = next(together)
            change, settled_id = products.change, products.settled_id
        else:
            head = await change_counter.current_head(connection)
            change, settled_id = head.change, head.settled_id
            rows = await read_rows(connection, selection=selection, after=after, limit=limit + 1)
            products = DecodedRows(rows)
        total = await _total(connection, each)
        pages.append(page_of(each, change, products, total=total, settled_id=settled_id))
        if turn is not None:
            await turn.yield_if_over()
    return pages


def page_of(
    request: PageRequest,
    change: ChangeId,
    products: PageRows,
    *,
    total: int | None = None,
    settled_id: int = 0,
) -> Page:
    """Return the page of a request.

    Args:
        request: the request.
        change: the last change included.
        products: the first products after the request's position, one more than fit on the page if
            there are as many.
        total: the number of products on all pages, if it was requested.
        settled_id: the id up to which creating products has no effect; 0 if it is not known.
    """
    count = _fitting(products, request.query.limit)
    is_last = len(products) <= count
    last = None if is_last else _position(request.selection, products, count - 1)
    span = _span_of(request, products, count)
    return Page(change, products, count, last, total, span, settled_id)


def _position(selection: Selection, products: PageRows, index: int) -> Position:
    if selection.sort_column == "id":
        return (products.id_of(index),)
    return selection.position_of(products[index])


def _span_of(request: PageRequest, products: PageRows, count: int) -> range | None:
    """Return the ids of all products whose changes affect a page.

    In the order of ids, these are the ids on the page, those between, and the product behind it,
    which decides whether there is a next page: a change elsewhere has no effect, whatever the
    filters. None if the page has another order or a total, or if every new product affects it and
    reading it again costs little more than reading the log.
    """
    selection, after = request.selection, request.after
    if selection.sort_column != "id" or request.query.total:
        return None
    low = int(after[-1]) if after else None
    high = products.id_of(count) if len(products) > count else None
    if selection.sort == "-id":
        low, high = high, low
    if selection.ids:
        low, high = max(low or 1, min(selection.ids)), min(high or MAX_ID, max(selection.ids))
    if high is None and request.is_light:
        return None
    return range(low or 1, (high or MAX_ID) + 1)


def _fitting(products: PageRows, limit: int) -> int:
    """Return the size of a page: up to its limit, as many products as fit, and at least one.

    Products count with all their fields, so that all engines and encodings cut pages alike.
    """
    most = min(limit, len(products))
    if products.most_bytes <= queries.PAGE_BYTES:
        return most
    count = size = 0
    while count < most and size <= queries.PAGE_BYTES:
        size += len(orjson.dumps(products[count])) + 1
        count += 1
    return count if size <= queries.PAGE_BYTES else max(1, count - 1)


def _text_query(request: PageRequest) -> TextQuery:
    selection, after, limit = request.selection, request.after, request.query.limit
    statement = encoded_page(
        sort=selection.sort,
        filters=selection.filters,
        resumed=after is not None,
        bounded=limit > queries.FEW_ROWS,
    )
    # One extra row tells whether there is a next page.
    return TextQuery(statement, _values(selection, after, limit + 1))


def _values(
    selection: Selection, after: Position | None, limit: int, max_bytes: int = queries.PAGE_BYTES
) -> dict[str, Any]:
    bounds = {"limit": limit, "max_bytes": max_bytes}
    return {**selection.values, **selection.values_after(after), **bounds}


async def _total(connection: AsyncConnection, request: PageRequest) -> int | None:
    if not request.query.total:
        return None
    selection = request.selection
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
    """Return the rows of a selection after a position, with the values of ``queries.FIELDS``.

    Args:
        connection: the connection to read on.
        selection: filters and sort order.
        after: the keyset position after which to begin; None for the start.
        limit: maximum number of rows.
        max_bytes: bound on the bytes of their texts; the product that exceeds it is the last. None
            for ``queries.PAGE_BYTES``, or for no bound if there are only a few rows.
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
