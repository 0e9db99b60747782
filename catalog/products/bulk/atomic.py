"""Atomic import: creates all products of a text in one transaction, or none."""

import asyncio
from collections.abc import AsyncIterator
from tempfile import TemporaryFile
from typing import IO

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
from catalog.products.bulk.formats import ParsedProduct
from catalog.products.changes import change_log
from catalog.products.models import ChangeId

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
        async for parsed_products, _ in chunks:
            if not imported.failed:
                await spool.add(parsed_products)
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
    async for parsed_products in spool.chunks():
        new_products = await tokenize(parsed_products, owner_id)
        chunks.append(await service.insert_unlogged(session, new_products, at=at))
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

    async def add(self, parsed_products: list[ParsedProduct]) -> None:
        """Append a chunk.

        Raises:
            BodyTooLarge: the spool exceeds the limits of one transaction.
            Overloaded: the disk is full.
        """
        if not parsed_products:
            # The final chunk is empty if the one before it was full.
            return
        data = orjson.dumps([tuple(product) for product in parsed_products])
        self._sizes.append(len(data))
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
        """Yield the chunks from the first on."""
        await asyncio.to_thread(self._file.seek, 0)
        for size in self._sizes:
            data = await asyncio.to_thread(self._file.read, size)
            yield [ParsedProduct(*each) for each in orjson.loads(data)]
