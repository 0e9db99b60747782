"""Bulk export: streams any number of products in constant memory.

Chunks are read by keyset pagination and not from one long-lived cursor, so that a slow client holds
no connection. The next chunk is read while the previous one is sent.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    Callable,
    Sequence,
)
from operator import itemgetter
from typing import Any

from catalog.db.database import Database
from catalog.products import queries
from catalog.products.bulk.formats import Format, WriterOptions
from catalog.products.listing import page_reader
from catalog.products.selection import Position, Selection

EXPORTED_ROWS = 1000
EXPORTED_CHARACTERS = 128 * 1024
"""Maximum size of a chunk, which blocks the event loop for about ten milliseconds. A chunk has
fewer products if those of the previous one were long, because each export holds several chunks in
several encodings."""

_FIRST_ROWS = 100

_DEFAULTS = WriterOptions()

MAX_EXPORTS = 64
"""Concurrent exports in one process. Each holds up to some megabytes for as long as its client
takes, and anonymous clients may start one."""


async def export_products(
    database: Database,
    form: Format,
    selection: Selection,
    *,
    options: WriterOptions = _DEFAULTS,
    fields: Sequence[str] | None = None,
    after: Position | None = None,
    limit: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> AsyncGenerator[bytes, None]:
    """Export the products of a selection as a stream of text.

    It is not a snapshot: concurrent changes may or may not be included, but each product that
    exists throughout is included once. Following the changes from a position read before the export
    yields the rest.

    Args:
        database: the database to read from.
        form: the format of the text.
        selection: filters and sort order.
        options: of the text.
        fields: the fields of each product, in this order; None for all.
        after: the keyset position after which to begin; None for the start.
        limit: maximum number of products; None for all.
        advance: called with the number of products in each piece once the client has taken it.

    Yields:
        pieces of the text.

    Raises:
        DatabaseUnavailable, DatabaseBusy: as ``Database.connection``; the export is incomplete.
    """
    writer = form.writer(fields or queries.FIELDS, options)
    narrowed = _narrowed(fields) if fields else None
    left = limit
    at_once = min(EXPORTED_ROWS, _FIRST_ROWS)

    async def read() -> Sequence[Sequence[Any]]:
        size = at_once if left is None else min(at_once, left)
        async with database.connection() as connection:
            return await page_reader.read_rows(
                connection,
                selection=selection,
                after=after,
                limit=size,
                max_bytes=EXPORTED_CHARACTERS,
            )

    next_rows = asyncio.create_task(read())
    head = writer.head()
    try:
        while rows := await next_rows:
            if left is not None:
                left -= len(rows)
            after = selection.position_of(queries.members_of(rows[-1]))
            fitting = EXPORTED_CHARACTERS * len(rows) // max(1, sum(map(_characters, rows)))
            at_once = max(1, min(EXPORTED_ROWS, fitting))
            if left != 0:
                next_rows = asyncio.create_task(read())
            text = head + writer.write(rows if narrowed is None else list(map(narrowed, rows)))
            # While a slow client takes the text, the rows it was made of are freed.
            count, rows = len(rows), ()
            yield text
            advance(count)
            head = b""
            if left == 0:
                return
        if head:
            yield head
    finally:
        next_rows.cancel()


def _characters(row: Sequence[Any]) -> int:
    return len(row[_NAME]) + len(row[_DESCRIPTION] or "")


_NAME, _DESCRIPTION = map(queries.FIELDS.index, ("name", "description"))


def _narrowed(fields: Sequence[str]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Return a function that picks fields from a row."""
    places = [queries.FIELDS.index(name) for name in fields]
    if len(places) == 1:
        return lambda row: (row[places[0]],)
    return itemgetter(*places)
