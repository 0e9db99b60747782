"""Creates of products, batched by group commit; one per process."""

from collections.abc import Sequence

from catalog.concurrency.group_commit import GroupCommit
from catalog.db.database import Database
from catalog.errors import CatalogError, KeyInUse, KeyReused
from catalog.observability.metrics import IDEMPOTENCY, WRITE_BATCH_SIZE
from catalog.products import service
from catalog.products.idempotency import key_of
from catalog.products.listing.page_cache import Pages
from catalog.products.models import NewProduct
from catalog.products.overload import CreateRefusals
from catalog.products.search.tokenizer import text_of
from catalog.products.service import Create, WriteResult


class BatchedCreates:
    """Queue of creates that commits concurrent ones together.

    Args:
        database: the database to write to.
        pages: the page cache, which each commit makes stale.
    """

    def __init__(self, database: Database, pages: Pages) -> None:
        self._database = database
        self._pages = pages
        self._queue = GroupCommit(
            self._commit,
            CreateRefusals(),
            patience=database.patience,
            has_readers=pages.is_in_demand,
            limit=database.write_limit,
            size_of=service.characters_of,
            on_batch=WRITE_BATCH_SIZE.observe,
        )

    async def create(self, offer: NewProduct, key: str | None) -> WriteResult:
        """Create a product.

        Args:
            offer: the product to create.
            key: the client's ``Idempotency-Key``, if it sent one.

        Raises:
            CatalogError: as ``service.create_products``; or the queue is full, or the create was
                not committed in time.
        """
        # Tokenized here and not in the batch, where long texts of many requests would block the
        # event loop all at once.
        offer = offer._replace(words=text_of(offer.name, offer.description))
        if key is None:
            return await self._queue.write(Create(offer))
        create = Create(offer, key_of(offer, key))
        try:
            created = await self._queue.write(create, key=create.key and create.key.name)
        except KeyInUse:
            IDEMPOTENCY.labels("conflict").inc()
            raise
        except KeyReused:
            IDEMPOTENCY.labels("mismatch").inc()
            raise
        IDEMPOTENCY.labels("replayed" if created.replayed else "first").inc()
        return created

    async def close(self) -> None:
        """Wait until all queued creates are committed."""
        await self._queue.close()

    async def _commit(self, creates: Sequence[Create]) -> Sequence[WriteResult | CatalogError]:
        outcomes = await self._database.transaction(service.create_products, creates)
        self._pages.forget()
        return outcomes
