"""Export products in bulk: any number of them as a stream, in constant memory.

Chunks are read by keyset and not from one long cursor, so that a slow client holds no connection;
one is read while the one before is sent.
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
from catalog.products.bulk.formats import Format
from catalog.products.listing import page_reader
from catalog.products.queries import Position, Selection

EXPORTED_ROWS = 1000
EXPORTED_CHARACTERS = 128 * 1024
"""What is read at a time, which keeps the event loop for some ten milliseconds. There are fewer
products where those before were long: of each export several chunks are held, in several forms."""

_FIRST_ROWS = 100

MAX_EXPORTS = 64
"""At the same time in one process. Each holds up to some megabytes for as long as its client
likes, and anyone may ask for one."""


async def export_products(
    database: Database,
    form: Format,
    selection: Selection,
    *,
    fields: Sequence[str] | None = None,
    after: Position | None = None,
    limit: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> AsyncGenerator[bytes, None]:
    """The products of a selection as a text.

    What is changed meanwhile is in it or not; each product that is there throughout is in it
    once. Who then follows the changes from a position of before has them all.

    Args:
        database: where from.
        form: how to write them down.
        selection: which products, in which order.
        fields: what of each, in this order; None for everything.
        after: the place behind which to begin; None for the first one.
        limit: products at most; None for all.
        advance: is told how many more have been taken.

    Yields:
        pieces of the text.

    Raises:
        DatabaseUnavailable, DatabaseBusy: as ``Database.reading``; what was yielded is not all.
    """
    writer = form.writer(fields or queries.FIELDS)
    narrowed = _narrowed(fields) if fields else None
    left = limit
    at_once = min(EXPORTED_ROWS, _FIRST_ROWS)

    def reading() -> asyncio.Task[Sequence[Sequence[Any]]]:
        size = at_once if left is None else min(at_once, left)
        rows = database.reading(
            page_reader.read_rows,
            selection=selection,
            after=after,
            limit=size,
            max_bytes=EXPORTED_CHARACTERS,
        )
        return asyncio.create_task(rows)

    next_rows = reading()
    head = writer.head()
    try:
        while rows := await next_rows:
            if left is not None:
                left -= len(rows)
            after = selection.position_of(dict(zip(queries.FIELDS, rows[-1], strict=True)))
            fitting = EXPORTED_CHARACTERS * len(rows) // max(1, sum(map(_characters, rows)))
            at_once = max(1, min(EXPORTED_ROWS, fitting))
            if left != 0:
                next_rows = reading()
            text = head + writer.write(rows if narrowed is None else list(map(narrowed, rows)))
            # A slow client holds the text, but not what it was made of.
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
    """Takes some fields out of a row."""
    places = [queries.FIELDS.index(name) for name in fields]
    if len(places) == 1:
        return lambda row: (row[places[0]],)
    return itemgetter(*places)
