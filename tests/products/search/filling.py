"""Many products with their words, for tests of searches."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.database import Database
from catalog.products.models import Product, ProductWords


async def fill(
    database: Database, products: Sequence[dict[str, Any]], words: Sequence[dict[str, Any]]
) -> None:
    """Insert rows of products and of their words, and wait until searches find all of them.

    InnoDB adds new rows to a full-text index in memory, and writes them out in the background when
    they are many; until that is done a search may miss some. Rebuilding the table leaves nothing
    to be written.
    """

    async def insert_all(session: AsyncSession) -> None:
        await session.execute(insert(Product), products)
        await session.execute(insert(ProductWords), words)

    await database.transaction(insert_all)
    _, engine = database.engines
    if engine.dialect.name != "sqlite":
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"OPTIMIZE TABLE {ProductWords.__tablename__}")
