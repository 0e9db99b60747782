"""Writes of single products, batched by group commit; one queue of them per process.

A commit takes the lock on the change counter, and makes cached pages of the list stale. So while
pages are being read, a batch of several is followed by a short pause: cached pages live longer, and
the next batch is larger.
"""

from collections.abc import Sequence
from functools import partial

from catalog.concurrency.group_commit import GroupCommit
from catalog.db.database import Database
from catalog.db.deadlines import deadline_start
from catalog.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from catalog.observability.metrics import IDEMPOTENCY, WRITE_BATCH_SIZE, observe_position
from catalog.products.idempotency import keyed_create
from catalog.products.listing.page_cache import PageCache
from catalog.products.models import NewProduct
from catalog.products.overload import WriteRefusals
from catalog.products.search.tokenizer import text_in_turns
from catalog.products.writes.batch import MAX_REINDEXED_BYTES, write_products
from catalog.products.writes.requests import (
    BatchFull,
    Create,
    Edit,
    LockedElsewhere,
    Outcome,
    Write,
    WriteResult,
    characters_of,
)

MAX_BATCH = 256
"""Writes in one transaction."""

MAX_BATCH_CHARACTERS = 250_000
"""Characters in one transaction; a single write may exceed it. Formatting more of them as SQL would
block the event loop for more than some ten milliseconds."""

MAX_WAITING = 4096
"""Longest queue of writes; writes beyond it are rejected at once."""

PAUSE_SECONDS = 0.04
"""Pause after a batch of several while pages are being read."""


class BatchedWrites:
    """Queue of creates, updates and deletes that commits concurrent ones together.

    Args:
        database: the database to write to.
        page_cache: the page cache, which is notified of each commit.
    """

    def __init__(self, database: Database, page_cache: PageCache) -> None:
        self._database = database
        self._page_cache = page_cache
        self._queue = self._group_commit(waits=False, max_size=MAX_BATCH_CHARACTERS)
        # Edits of products that an import, the deletion of an account or another process has
        # locked wait here, so that they hold up no others.
        self._late_queue = self._group_commit(waits=True, max_size=MAX_REINDEXED_BYTES)
        # Edits of long products that a batch had no room for wait here, for the same reason.
        self._long_queue = self._group_commit(waits=False, max_size=MAX_REINDEXED_BYTES)

    def _group_commit(self, *, waits: bool, max_size: int) -> GroupCommit[Write, WriteResult]:
        return GroupCommit(
            partial(self._commit, waits=waits),
            WriteRefusals(),
            max_batch=MAX_BATCH,
            max_waiting=MAX_WAITING,
            wait_seconds=self._database.deadlines.checkout,
            deadline_seconds=self._database.deadlines.write,
            size_of=characters_of,
            max_size=max_size,
            pause_seconds=PAUSE_SECONDS,
            should_pause=self._page_cache.is_in_demand,
            on_batch=WRITE_BATCH_SIZE.observe,
        )

    async def create(self, new_product: NewProduct, idempotency_key: str | None) -> WriteResult:
        """Create a product.

        Args:
            new_product: the product to create.
            idempotency_key: the client's ``Idempotency-Key``, if it sent one.

        Raises:
            CatalogError: as ``write_products``; or the queue is full, or the create was not
                committed in time.
        """
        # Tokenized here and not in the batch, where long texts of many requests would block the
        # event loop all at once.
        words = await text_in_turns(new_product.name, new_product.description)
        new_product = new_product._replace(words=words)
        since = deadline_start()
        if idempotency_key is None:
            return await self._queue.write(Create(new_product), since=since)
        idempotency = keyed_create(new_product, idempotency_key)
        create = Create(new_product, idempotency)
        try:
            created = await self._queue.write(create, key=idempotency.name, since=since)
        except IdempotencyKeyInUse:
            IDEMPOTENCY.labels("conflict").inc()
            raise
        except IdempotencyKeyReused:
            IDEMPOTENCY.labels("mismatch").inc()
            raise
        IDEMPOTENCY.labels("replayed" if created.replayed else "first").inc()
        return created

    async def edit(self, edit: Edit) -> WriteResult:
        """Update or delete a product.

        Raises:
            CatalogError: as ``create``.
        """
        since = deadline_start()
        queue = self._queue
        while True:
            try:
                return await queue.write(edit, since=since)
            except LockedElsewhere:
                queue = self._late_queue
            except BatchFull as full:
                # Now its size is known, so that batches are made that such edits fit into.
                edit = edit._replace(stored_bytes=full.stored_bytes)
                if queue is self._queue:
                    queue = self._long_queue

    async def close(self) -> None:
        """Wait until all queued writes are committed."""
        await self._queue.close()
        await self._long_queue.close()
        await self._late_queue.close()

    async def _commit(self, writes: Sequence[Write], *, waits: bool) -> Sequence[Outcome]:
        outcomes = await self._database.transaction(write_products, writes, waits=waits)
        self._page_cache.note_commit()
        done = (each.change.position for each in outcomes if isinstance(each, WriteResult))
        observe_position(max(done, default=0))
        return outcomes
