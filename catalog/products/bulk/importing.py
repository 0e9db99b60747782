"""Bulk import: creates any number of products from a stream, in constant memory.

Each chunk is written in a transaction of its own, while the next ones are parsed.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple, cast

from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.accounts import require_account
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.db.deadlines import suspended_deadline
from catalog.errors import CatalogError, LinesInvalid
from catalog.products import service
from catalog.products.bulk.atomic import import_atomically
from catalog.products.bulk.chunks import Chunk, ImportResult, read_chunks, tokenize
from catalog.products.bulk.formats import ParsedProduct, Reader, UpsertLine
from catalog.products.bulk.upserting import Upserted, Upserts
from catalog.products.changes import change_ids, change_log
from catalog.products.models import NewProduct

CHUNKS_AT_ONCE = 2
"""Concurrent chunks of one import, if the engine allows several writers; they commit in order."""

MAX_IMPORTS = 16
"""Concurrent imports in one process. Each holds up to some megabytes for as long as its client
takes."""


async def import_products(
    database: Database,
    pieces: AsyncIterable[bytes],
    reader: Reader,
    *,
    owner_id: int,
    upsert: bool = False,
    atomic: bool = False,
    dry_run: bool = False,
    imported: ImportResult | None = None,
) -> ImportResult:
    """Create the products that a text describes, for an owner, or change those that it names.

    Args:
        database: the database to write to.
        pieces: the text, in pieces of any size.
        reader: a reader for the text's format.
        owner_id: the account that owns the products.
        upsert: whether the reader yields lines that may change products.
        atomic: whether to create all products or none; up to ``MAX_ATOMIC_ROWS``.
        dry_run: whether to validate only, and create nothing.
        imported: a new result to fill in, for callers that need it whatever ends the import.

    Raises:
        LinesInvalid: the text is unreadable as a whole; or an atomic import has an invalid line.
        BodyTooLarge: an atomic import is too large.
        AccountUnavailable: the owner's account is disabled or deleted.
        CatalogError: the import was aborted by an error of the body or of the database. The error's
            members tell what had been created by then.
    """
    imported = imported or ImportResult(has_upserts=upsert)
    if dry_run:
        async with database.connection() as connection:
            await require_account(connection, user_id=owner_id)
    async with aclosing(read_chunks(pieces, reader, imported)) as chunks:
        if atomic:
            await import_atomically(database, chunks, imported, owner_id=owner_id, dry_run=dry_run)
        elif dry_run:
            async for chunk in chunks:
                await _try_chunk(database, chunk, imported, owner_id=owner_id)
        else:
            await _import_in_chunks(database, chunks, imported, owner_id=owner_id)
    return imported


async def _try_chunk(
    database: Database, chunk: Chunk, imported: ImportResult, *, owner_id: int
) -> None:
    """Count what a chunk would do, on its own: the chunks before it are not written either."""
    lines = chunk.upserts()
    if lines is None:
        imported.created += len(chunk.parsed_products)
        return
    async with database.connection() as connection:
        upserts = Upserts(connection, owner_id=owner_id)
        await upserts.apply(lines)
    imported.count_upserted(upserts.done, has_ids=False)


async def _upsert(session: AsyncSession, lines: Sequence[UpsertLine], *, owner_id: int) -> Upserted:
    await require_account(session, user_id=owner_id)
    upserts = Upserts(session, owner_id=owner_id)
    await upserts.apply(lines)
    return await upserts.log()


class _Writing(NamedTuple):
    """Chunk that is being written.

    Attributes:
        numbered: set once its products have their ids, or once it has failed.
        done: the task, which ends after the commit.
    """

    numbered: asyncio.Event
    done: "asyncio.Task[None]"


async def _import_in_chunks(
    database: Database, chunks: AsyncIterator[Chunk], imported: ImportResult, *, owner_id: int
) -> None:
    async def write(
        new_products: list[NewProduct], line: int, numbered: asyncio.Event, before: _Writing | None
    ) -> None:
        try:
            if new_products:
                imported.count(
                    await database.bulk_transaction(
                        _create,
                        new_products,
                        owner_id=owner_id,
                        before=before,
                        on_numbered=numbered.set,
                    )
                )
            imported.line = line
        finally:
            numbered.set()

    async def upsert(lines: list[UpsertLine], line: int, numbered: asyncio.Event) -> None:
        try:
            done = await database.bulk_transaction(_upsert, lines, owner_id=owner_id)
            imported.count_upserted(done)
            imported.line = line
        finally:
            numbered.set()

    writing: deque[_Writing] = deque()
    try:
        try:
            async for chunk in chunks:
                lines = chunk.upserts()
                numbered = asyncio.Event()
                if lines is not None:
                    # Its outcome depends on those of all chunks before it.
                    while writing:
                        await writing.popleft().done
                    task = asyncio.create_task(upsert(lines, chunk.line, numbered))
                else:
                    # Tokenized while the database is still busy with the previous chunks.
                    new_products = await tokenize(
                        cast("list[ParsedProduct]", chunk.parsed_products), owner_id
                    )
                    while len(writing) >= min(CHUNKS_AT_ONCE, database.max_bulk_writers):
                        await writing.popleft().done
                    before = writing[-1] if writing else None
                    task = asyncio.create_task(write(new_products, chunk.line, numbered, before))
                writing.append(_Writing(numbered, task))
        finally:
            # The chunks that were started are completed, even if reading has failed.
            tasks = [each.done for each in writing]
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
    except CatalogError as error:
        if not isinstance(error, LinesInvalid):
            error.members |= {**imported.rendered(), "line": imported.line}
            if imported.change is not None:
                # The response reports created products, so caches have to see their position.
                error.headers.update(change_ids.position_headers(imported.change))
        raise


async def _create(
    session: AsyncSession,
    new_products: list[NewProduct],
    *,
    owner_id: int,
    before: _Writing | None,
    on_numbered: Callable[[], None],
) -> service.Inserted:
    """Create a chunk's products, with ids after those of the previous chunk, and commit after it.

    While it waits, it holds no lock that the previous chunk could need.
    """
    at = now()
    await require_account(session, user_id=owner_id)
    if before is not None:
        with suspended_deadline(session):
            await before.numbered.wait()
    ids = await service.insert_unlogged(session, new_products, at=at, on_numbered=on_numbered)
    if before is not None:
        with suspended_deadline(session):
            await asyncio.wait([before.done])
        before.done.result()
    return service.Inserted(ids, await change_log.record_created(session, ids, at=at), at)
