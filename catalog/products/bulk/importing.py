"""Bulk import: creates any number of products from a stream, in constant memory.

Each chunk is written in a transaction of its own, while the next ones are parsed.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import NamedTuple, Self, cast

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

UPSERTED_BYTES = 150_000
"""Texts of products, in UTF-8, after which upserts are committed before their chunk ends: a line of
some bytes can replace the words of the longest product. Other writes wait for one transaction."""

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
            with _progress_in_errors(imported):
                async with _ChunkWriter(database, imported, owner_id=owner_id) as writer:
                    async for chunk in chunks:
                        await writer.start(chunk)
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


async def _upsert(
    session: AsyncSession, lines: Sequence[UpsertLine], *, owner_id: int
) -> tuple[int, Upserted]:
    """Upsert as many lines as one transaction should; return their number and the outcome."""
    await require_account(session, user_id=owner_id)
    upserts = Upserts(session, owner_id=owner_id)
    count = await upserts.apply_some(lines, max_bytes=UPSERTED_BYTES)
    return count, await upserts.log()


@contextmanager
def _progress_in_errors(imported: ImportResult) -> Iterator[None]:
    """Add to a CatalogError what had been created by then."""
    try:
        yield
    except LinesInvalid:
        raise
    except CatalogError as error:
        error.members |= {**imported.rendered(), "line": imported.line}
        if imported.change is not None:
            # The response reports created products, so caches have to see their position.
            error.headers.update(change_ids.position_headers(imported.change))
        raise


class _Writing(NamedTuple):
    """Chunk that is being written.

    Attributes:
        numbered: set once its products have their ids, or once it has failed.
        done: the task, which ends after the commit.
    """

    numbered: asyncio.Event
    done: "asyncio.Task[None]"


class _ChunkWriter:
    """Writer of chunks, each in a transaction of its own; they commit in order.

    Leaving its context completes the chunks that were started, even after an error.

    Args:
        database: the database to write to.
        imported: gets the outcomes of the chunks.
        owner_id: the owner of the products.
    """

    def __init__(self, database: Database, imported: ImportResult, *, owner_id: int) -> None:
        self._database = database
        self._imported = imported
        self._owner_id = owner_id
        self._most_at_once = min(CHUNKS_AT_ONCE, database.max_bulk_writers)
        self._writing: deque[_Writing] = deque()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        tasks = [each.done for each in self._writing]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if kind is not None:
            return
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def start(self, chunk: Chunk) -> None:
        """Start to write a chunk, as soon as few enough others are being written.

        Raises:
            CatalogError: one of the chunks before it has failed.
        """
        numbered = asyncio.Event()
        lines = chunk.upserts()
        if lines is not None:
            # Its outcome depends on those of all chunks before it.
            await self._complete_all_but(0)
            work = self._upsert(lines, chunk.line, numbered)
        else:
            # Tokenized while the database is still busy with the previous chunks.
            parsed_products = cast("Sequence[ParsedProduct]", chunk.parsed_products)
            new_products = await tokenize(parsed_products, self._owner_id)
            await self._complete_all_but(self._most_at_once - 1)
            before = self._writing[-1] if self._writing else None
            work = self._create(new_products, chunk.line, numbered, before)
        self._writing.append(_Writing(numbered, asyncio.create_task(work)))

    async def _complete_all_but(self, count: int) -> None:
        while len(self._writing) > count:
            await self._writing.popleft().done

    async def _upsert(self, lines: list[UpsertLine], line: int, numbered: asyncio.Event) -> None:
        with self._ending_at(line, numbered):
            while lines:
                count, done = await self._database.bulk_transaction(
                    _upsert, lines, owner_id=self._owner_id
                )
                self._imported.count_upserted(done)
                lines = lines[count:]
                if lines:
                    self._imported.line = lines[0].number - 1

    async def _create(
        self,
        new_products: list[NewProduct],
        line: int,
        numbered: asyncio.Event,
        before: _Writing | None,
    ) -> None:
        with self._ending_at(line, numbered):
            if new_products:
                created = await self._database.bulk_transaction(
                    _create,
                    new_products,
                    owner_id=self._owner_id,
                    before=before,
                    on_numbered=numbered.set,
                )
                self._imported.count(created)

    @contextmanager
    def _ending_at(self, line: int, numbered: asyncio.Event) -> Iterator[None]:
        try:
            yield
            self._imported.line = line
        finally:
            numbered.set()


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
