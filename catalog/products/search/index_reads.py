"""Reads of InnoDB's full-text index, which misses rows at the moment when its cache is written.

InnoDB adds the words of a commit to a cache in memory. When a megabyte or two have accumulated, it
writes them to tables, empties the cache, releases its lock, and only then commits
(``fts_sync_commit`` in ``fts0fts.cc`` of MySQL and MariaDB). A search reads the cache, then the
tables, one word after the other; between emptying and commit the rows are in neither. Searches that
wait for the lock all continue at that moment. It lasts microseconds, or until the writing thread
gets the processor again (docs/adr/0031).

So while products are being written a search is read twice, and in between the newest rows have to
be found. Rows that the first read missed are committed by then, so the second one finds them; rows
that only the second one misses were found by the first one.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy import Select, String, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.columns import now
from catalog.db.fulltext import matches
from catalog.products.models import ProductChange, ProductWords
from catalog.products.search.tokenizer import OWN

RECENT = 32
"""Changes of which those rows have to be found that have a token of their own: the last ones of
their transactions. Unless all of these were committed while InnoDB was about to commit, one of them
is among the rows that it has written."""

_QUIET = timedelta(minutes=5)
"""Time without changes after which nothing is being written. It takes seconds, and the clocks of
two instances may differ."""

_PAUSES = (0.0, 0.002, 0.01, 0.05)
"""Seconds between attempts to find the newest rows, of which one is mostly enough."""

_change = ProductChange.__table__.c
_words = ProductWords.__table__.c


async def read(
    connection: AsyncConnection,
    statement: Select[Any],
    values: dict[str, Any],
    *,
    combine: Callable[[Sequence[Any], Sequence[Any]], Sequence[Any] | None],
) -> Sequence[Any]:
    """Run a statement that uses the full-text index, and miss no row that was committed before.

    Args:
        connection: the connection to read on.
        statement: the search.
        values: its parameters.
        combine: makes one result of those of two reads, of which only one may have missed a row;
            None if that is not possible.
    """
    rows = await rows_of(connection, statement, values)
    if connection.dialect.name == "sqlite":
        return rows
    for pause in (*_PAUSES, None):
        tokens = await _newest_tokens(connection)
        if tokens is None:
            return rows
        # After a crash InnoDB may never find one again (MySQL bug 120564), so the last attempt
        # does not depend on them.
        if pause is not None and not await are_found(connection, tokens):
            await asyncio.sleep(pause)
            continue
        before, rows = rows, await rows_of(connection, statement, values)
        combined = combine(before, rows)
        if combined is not None:
            return combined
    return rows


async def rows_of(
    connection: AsyncConnection, statement: Select[Any], values: dict[str, Any]
) -> Sequence[Any]:
    """Return the rows of one read."""
    rows: Sequence[Any] = (await connection.execute(statement, values)).all()
    return rows


async def _newest_tokens(connection: AsyncConnection) -> set[str] | None:
    """Return tokens that only the rows written last have; None if that was long ago."""
    rows = (await connection.execute(_newest())).all()
    if not rows or now() - rows[0].at > _QUIET:
        return None
    # Only the last row of a transaction has one, and none that another release has written.
    return {row.token for row in rows if row.token and row.token.startswith(f"{OWN}{row.id}v")}


async def are_found(connection: AsyncConnection, tokens: set[str]) -> bool:
    """Return whether the index has all tokens."""
    if not tokens:
        return True
    found = await connection.scalar(_found(), {"sought": [sorted(tokens)]})
    return int(found or 0) == len(tokens)


@cache
def _newest() -> Select[Any]:
    """Select the last changes, the newest first, with the last token of each product."""
    first = select(func.max(_change.position) - RECENT).scalar_subquery()
    token = func.substring_index(_words.words, " ", -1, type_=String)
    return (
        select(_change.at, _change.product_id.label("id"), token.label("token"))
        .outerjoin_from(ProductChange, ProductWords, _words.rowid == _change.product_id)
        .where(_change.position > first)
        .order_by(_change.position.desc())
    )


@cache
def _found() -> Select[Any]:
    return select(func.count()).where(matches(_words.words, "sought"))
