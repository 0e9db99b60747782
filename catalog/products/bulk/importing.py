"""Bulk import: creates any number of products from a stream, in constant memory.

Each chunk is written in a transaction of its own, while the next ones are parsed. Parsing runs on
the event loop, with which a thread would have to share the interpreter anyway, and yields every few
milliseconds.
"""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from time import monotonic
from typing import IO, Any, NamedTuple

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.service import require_account
from catalog.db.columns import now
from catalog.db.database import Database, renew_deadline, suspended_deadline
from catalog.errors import BodyTooLarge, CatalogError, LinesInvalid, Overloaded
from catalog.observability.metrics import count_rejection, observe_position
from catalog.products import service
from catalog.products.bulk.formats import LineFault, ParsedProduct, Reader, rendered
from catalog.products.changes import change_log
from catalog.products.models import ChangeId, NewProduct
from catalog.products.search.tokenizer import text_of

CHUNK_ROWS = 2000
CHUNK_CHARACTERS = 250_000
"""Maximum size of a transaction; fewer products if they are long. Formatting that many as SQL
blocks the event loop for about ten milliseconds."""

CHUNKS_AT_ONCE = 2
"""Concurrent chunks of one import, if the engine allows several writers; they commit in order."""

PIECE_BYTES = 64 * 1024
"""Minimum size of the pieces passed to the reader, which scans an incomplete record anew each
time."""

MAX_FAULTS = 1000
"""Faults that are reported in detail; further invalid lines are only counted."""

MAX_ATOMIC_ROWS = 100_000
MAX_ATOMIC_BYTES = 64 * 1024 * 1024
"""Size of one atomic transaction. Its positions are taken at its end, and all other writers wait
meanwhile."""

MAX_IMPORTS = 16
"""Concurrent imports in one process. Each holds up to some megabytes for as long as its client
takes."""

_TURN_SECONDS = 0.005
"""Longest work on the event loop before yielding to other tasks, plus at most one step."""


@dataclass(slots=True)
class Imported:
    """Progress and result of an import.

    Attributes:
        created: products that were created, or would be in a dry run.
        failed: number of invalid lines.
        line: the last processed line: all valid products up to it have been created.
        change: the last change.
        faults: faults of the first invalid lines, up to ``MAX_FAULTS``.
    """

    created: int = 0
    failed: int = 0
    line: int = 0
    first_id: int | None = None
    last_id: int | None = None
    change: ChangeId | None = None
    faults: list[LineFault] = field(default_factory=list)

    def count(self, inserted: service.Inserted) -> None:
        """Add created products to the result."""
        self.created += len(inserted.ids)
        self.first_id = self.first_id or inserted.ids[0]
        self.last_id = inserted.ids[-1]
        self.change = inserted.last
        observe_position(self.change.position)

    def rendered(self) -> dict[str, Any]:
        """Return the JSON members of the result."""
        return {
            "created": self.created,
            "failed": self.failed,
            "first_id": self.first_id,
            "last_id": self.last_id,
            "errors": rendered(self.faults),
        }


async def import_products(
    database: Database,
    pieces: AsyncIterable[bytes],
    reader: Reader,
    *,
    owner_id: int,
    atomic: bool = False,
    dry_run: bool = False,
) -> Imported:
    """Create the products that a text describes, for an owner.

    Args:
        database: the database to write to.
        pieces: the text, in pieces of any size.
        reader: a reader for the text's format.
        owner_id: the account that will own the products.
        atomic: whether to create all products or none; up to ``MAX_ATOMIC_ROWS``.
        dry_run: whether to validate only, and create nothing.

    Raises:
        LinesInvalid: the text is unreadable as a whole; or an atomic import has an invalid line.
        BodyTooLarge: an atomic import is too large.
        AccountUnavailable: the owner's account is disabled or deleted.
        CatalogError: the import was aborted by an error of the body or of the database. The error's
            members tell what had been created by then.
    """
    imported = Imported()
    if dry_run:
        await database.reading(require_account, user_id=owner_id)
    async with aclosing(_chunks(pieces, reader, imported)) as chunks:
        if atomic:
            await _import_at_once(database, chunks, imported, owner_id=owner_id, dry_run=dry_run)
        elif dry_run:
            async for drafts, _ in chunks:
                imported.created += len(drafts)
        else:
            await _import_in_chunks(database, chunks, imported, owner_id=owner_id)
    return imported


Chunk = tuple[list[ParsedProduct], int]
"""Parsed products, and the number of the line at which the chunk ends."""


async def _chunks(
    pieces: AsyncIterable[bytes], reader: Reader, imported: Imported
) -> AsyncGenerator[Chunk, None]:
    """Yield the valid products of a text in chunks, and record the faults of the other lines."""
    turn_ends = monotonic() + _TURN_SECONDS
    drafts: list[ParsedProduct] = []
    characters = 0
    async for piece, is_last in _gathered(pieces):
        for found in reader.read(piece, is_last=is_last):
            parsed = await asyncio.to_thread(found) if callable(found) else found
            if isinstance(parsed, ParsedProduct):
                drafts.append(parsed)
                characters += len(parsed.name) + len(parsed.description or "")
                if len(drafts) >= CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
                    yield drafts, reader.line
                    drafts, characters = [], 0
            elif parsed is not None:
                imported.failed += 1
                imported.faults += parsed[: MAX_FAULTS - len(imported.faults)]
            if monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = monotonic() + _TURN_SECONDS
        # The last step of a piece takes time even if it completes no line.
        if monotonic() > turn_ends:
            await asyncio.sleep(0)
            turn_ends = monotonic() + _TURN_SECONDS
    yield drafts, reader.line


async def _gathered(pieces: AsyncIterable[bytes]) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield the text in pieces of about ``PIECE_BYTES``, and whether each is the last."""
    parts: list[bytes] = []
    size = 0
    async for piece in pieces:
        # A much larger piece would be one long step of the reader.
        for start in range(0, len(piece), PIECE_BYTES):
            part = piece[start : start + PIECE_BYTES]
            parts.append(part)
            size += len(part)
            if size >= PIECE_BYTES:
                yield b"".join(parts), False
                parts, size = [], 0
    yield b"".join(parts), True


class _Writing(NamedTuple):
    """Chunk that is being written.

    Attributes:
        numbered: set once its products have their ids, or once it has failed.
        done: the task, which ends after the commit.
    """

    numbered: asyncio.Event
    done: "asyncio.Task[None]"


async def _offers_of(drafts: Sequence[ParsedProduct], owner_id: int) -> list[NewProduct]:
    """Tokenize products, and yield to the event loop every few milliseconds."""
    turn_ends = monotonic() + _TURN_SECONDS
    offers = []
    for draft in drafts:
        offers.append(NewProduct(*draft, owner_id, words=text_of(draft.name, draft.description)))
        if monotonic() > turn_ends:
            await asyncio.sleep(0)
            turn_ends = monotonic() + _TURN_SECONDS
    return offers


async def _import_in_chunks(
    database: Database, chunks: AsyncIterator[Chunk], imported: Imported, *, owner_id: int
) -> None:
    async def write(
        offers: list[NewProduct], line: int, numbered: asyncio.Event, before: _Writing | None
    ) -> None:
        try:
            if offers:
                imported.count(
                    await database.bulk_transaction(
                        _create,
                        offers,
                        owner_id=owner_id,
                        before=before,
                        on_numbered=numbered.set,
                    )
                )
            imported.line = line
        finally:
            numbered.set()

    writing: deque[_Writing] = deque()
    try:
        try:
            async for drafts, line in chunks:
                # Tokenized while the database is still busy with the previous chunks.
                offers = await _offers_of(drafts, owner_id)
                while len(writing) >= min(CHUNKS_AT_ONCE, database.max_bulk_writers):
                    await writing.popleft().done
                before = writing[-1] if writing else None
                numbered = asyncio.Event()
                task = asyncio.create_task(write(offers, line, numbered, before))
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
                error.headers.update(change_log.position_headers(imported.change))
        raise


async def _create(
    session: AsyncSession,
    offers: list[NewProduct],
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
    ids = await service.insert_unlogged(session, offers, at=at, on_numbered=on_numbered)
    if before is not None:
        with suspended_deadline(session):
            await asyncio.wait([before.done])
        before.done.result()
    return service.Inserted(ids, await change_log.record_created(session, ids, at=at), at)


async def _import_at_once(
    database: Database,
    chunks: AsyncIterator[Chunk],
    imported: Imported,
    *,
    owner_id: int,
    dry_run: bool,
) -> None:
    """Create all products or none.

    They are spooled to disk until all have been validated: a transaction must not wait for a
    client.
    """
    with await asyncio.to_thread(TemporaryFile) as file:
        spool = _Spool(file)
        async for drafts, _ in chunks:
            if not imported.failed:
                await spool.add(drafts)
        if imported.failed:
            raise LinesInvalid("Nothing was created.", members=imported.rendered())
        if dry_run:
            imported.created = spool.rows
        elif spool.rows:
            imported.count(await database.bulk_transaction(_create_all, spool, owner_id=owner_id))


async def _create_all(session: AsyncSession, spool: "_Spool", *, owner_id: int) -> service.Inserted:
    await require_account(session, user_id=owner_id)
    at = now()
    chunks = []
    async for drafts in spool.chunks():
        offers = await _offers_of(drafts, owner_id)
        chunks.append(await service.insert_unlogged(session, offers, at=at))
        renew_deadline(session)
    last = ChangeId(0)
    for ids in chunks:
        last = await change_log.record_created(session, ids, at=at)
        renew_deadline(session)
    return service.Inserted([product_id for ids in chunks for product_id in ids], last, at)


class _Spool:
    """Spool of chunks on disk.

    Args:
        file: an empty temporary file for this spool alone.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sizes: list[int] = []
        self._size = 0
        self.rows = 0

    async def add(self, drafts: list[ParsedProduct]) -> None:
        """Append a chunk.

        Raises:
            BodyTooLarge: the spool exceeds the limits of one transaction.
            Overloaded: the disk is full.
        """
        if not drafts:
            # The final chunk is empty if the one before it was full.
            return
        data = orjson.dumps([tuple(draft) for draft in drafts])
        self._sizes.append(len(data))
        self._size += len(data)
        self.rows += len(drafts)
        if self.rows > MAX_ATOMIC_ROWS or self._size > MAX_ATOMIC_BYTES:
            raise BodyTooLarge(
                f"An atomic import may have at most {MAX_ATOMIC_ROWS} products and "
                f"{MAX_ATOMIC_BYTES} bytes."
            )
        try:
            await asyncio.to_thread(self._file.write, data)
        except OSError as error:
            count_rejection("imports")
            raise Overloaded("There is no disk space for this import.") from error

    async def chunks(self) -> AsyncIterator[list[ParsedProduct]]:
        """Yield the chunks from the first on."""
        await asyncio.to_thread(self._file.seek, 0)
        for size in self._sizes:
            data = await asyncio.to_thread(self._file.read, size)
            yield [ParsedProduct(*each) for each in orjson.loads(data)]
