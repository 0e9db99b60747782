"""Many products with their words, for tests of searches."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.columns import now
from catalog.db.database import Database
from catalog.products.changes import change_log
from catalog.products.models import ChangeType, Product, ProductWords


async def fill(
    database: Database, products: Sequence[dict[str, Any]], words: Sequence[dict[str, Any]]
) -> None:
    """Insert rows of products and of their words, and log the last one.

    Searches read InnoDB's full-text index twice if the log says that something was written.
    """

    async def insert_all(session: AsyncSession) -> None:
        await session.execute(insert(Product), products)
        await session.execute(insert(ProductWords), words)
        last = [(products[-1]["id"], 1)]
        await change_log.record(session, ChangeType.CREATED, last, at=now())

    await database.transaction(insert_all)
