"""Atomic import: creates all products of a text in one transaction, or none."""

import asyncio
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from tempfile import TemporaryFile
from typing import IO, Any

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.accounts import require_account
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.db.deadlines import renew_deadline
from catalog.errors import BodyTooLarge, LinesInvalid, Overloaded
from catalog.observability.metrics import count_rejection
from catalog.products import service
from catalog.products.bulk.chunks import Chunk, ImportResult, tokenize
from catalog.products.bulk.formats import LineFault, ParsedProduct, UpsertLine
from catalog.products.bulk.upserting import Upserted, Upserts
from catalog.products.changes import change_log
from catalog.products.changes.change_ids import ChangeId
from catalog.products.models import NewProduct

MAX_ATOMIC_ROWS = 100_000
MAX_ATOMIC_BYTES = 64 * 1024 * 1024
"""Size of one atomic transaction. Its positions are taken at its end, and all other writers wait
meanwhile."""


async def import_atomically(
    database: Database,
    chunks: AsyncIterator[Chunk],
    imported: ImportResult,
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
        async for chunk in chunks:
            if not imported.failed:
                await spool.add(chunk)
        if not imported.failed and spool.has_upserts:
            await _upsert_all(database, spool, imported, owner_id=owner_id, dry_run=dry_run)
        if imported.failed:
            raise LinesInvalid("Nothing was written.", members=imported.rendered())
        if spool.has_upserts:
            return
        if dry_run:
            imported.created = spool.rows
        elif spool.rows:
            imported.count(await database.bulk_transaction(_create_all, spool, owner_id=owner_id))


async def _upsert_all(
    database: Database,
    spool: "_Spool",
    imported: ImportResult,
    *,
    owner_id: int,
    dry_run: bool,
) -> None:
    """Apply all lines, or only add their faults to the result."""
    if dry_run:
        async with database.connection() as connection:
            upserts = Upserts(connection, owner_id=owner_id)
            async for lines in spool.upserts():
                await upserts.apply(lines)
        imported.count_upserted(upserts.done, has_ids=False)
        return
    try:
        done = await database.bulk_transaction(_apply_all, spool, owner_id=owner_id)
    except _LinesFailed as failed:
        imported.count_upserted(Upserted(failed=failed.count, faults=failed.faults))
    else:
        imported.count_upserted(done)


class _LinesFailed(Exception):
    """Lines have faults, so that the transaction is rolled back."""

    def __init__(self, count: int, faults: list[list[LineFault]]) -> None:
        super().__init__()
        self.count = count
        self.faults = faults


async def _apply_all(session: AsyncSession, spool: "_Spool", *, owner_id: int) -> Upserted:
    await require_account(session, user_id=owner_id)
    upserts = Upserts(session, owner_id=owner_id)
    async for lines in spool.upserts():
        await upserts.apply(lines)
    if upserts.done.faults:
        raise _LinesFailed(upserts.done.failed, upserts.done.faults)
    return await upserts.log()


async def _create_all(session: AsyncSession, spool: "_Spool", *, owner_id: int) -> service.Inserted:
    await require_account(session, user_id=owner_id)
    at = now()
    chunks = []
    async with aclosing(_tokenized(spool, owner_id)) as tokenized:
        async for new_products in tokenized:
            chunks.append(await service.insert_unlogged(session, new_products, at=at))
            renew_deadline(session)
    last = ChangeId(0)
    for ids in chunks:
        last = await change_log.record_created(session, ids, at=at)
        renew_deadline(session)
    return service.Inserted([product_id for ids in chunks for product_id in ids], last, at)


async def _tokenized(spool: "_Spool", owner_id: int) -> AsyncGenerator[list[NewProduct], None]:
    """Yield the chunks of a spool, and tokenize the next one while the last one is written."""
    chunks = spool.chunks()

    async def read() -> list[NewProduct]:
        return await tokenize(await anext(chunks, []), owner_id)

    ahead = asyncio.create_task(read())
    try:
        while True:
            # Neither here nor below is it cancelled: a thread would go on reading the file, which a
            # retry reads again.
            await asyncio.wait([ahead])
            if not (new_products := ahead.result()):
                return
            ahead = asyncio.create_task(read())
            yield new_products
    finally:
        await asyncio.wait([ahead])
        ahead.exception()  # Retrieved, so that asyncio does not log it.


class _Spool:
    """Spool of chunks on disk.

    Args:
        file: an empty temporary file for this spool alone.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        # The size of each chunk, and the numbers of its lines.
        self._chunks: list[tuple[int, Sequence[int]]] = []
        self._size = 0
        self._kind: type[ParsedProduct | UpsertLine] = ParsedProduct
        self.rows = 0
        self.has_upserts = False

    async def add(self, chunk: Chunk) -> None:
        """Append a chunk.

        Raises:
            BodyTooLarge: the spool exceeds the limits of one transaction.
            Overloaded: the disk is full.
        """
        parsed_products = chunk.parsed_products
        if not parsed_products:
            # The final chunk is empty if the one before it was full.
            return
        self._kind = type(parsed_products[0])
        self.has_upserts |= chunk.upserts() is not None
        data = orjson.dumps([tuple(product) for product in parsed_products])
        self._chunks.append((len(data), array("q", chunk.numbers)))
        self._size += len(data)
        self.rows += len(parsed_products)
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
        """Yield the products from the first on."""
        async for _, parsed_products in self._read():
            yield [ParsedProduct(*each) for each in parsed_products]

    async def upserts(self) -> AsyncIterator[list[UpsertLine]]:
        """Yield the lines from the first on."""
        async for numbers, parsed_products in self._read():
            if self._kind is UpsertLine:
                yield [UpsertLine(*each) for each in parsed_products]
            else:
                products = zip(numbers, map(ParsedProduct._make, parsed_products), strict=True)
                yield [UpsertLine.creating(*each) for each in products]

    async def _read(self) -> AsyncIterator[tuple[Sequence[int], list[Any]]]:
        await asyncio.to_thread(self._file.seek, 0)
        for size, numbers in self._chunks:
            yield numbers, orjson.loads(await asyncio.to_thread(self._file.read, size))
