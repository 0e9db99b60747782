"""Connections to databases that are being migrated."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.engines import Purpose, create_engine
from tests.engines import settings_for


@asynccontextmanager
async def connected(url: URL) -> AsyncIterator[AsyncConnection]:
    """Open a connection without taking the migration lock."""
    engine = create_engine(settings_for(url), Purpose.MIGRATING)
    try:
        async with engine.connect() as connection:
            yield connection
            await connection.commit()
    finally:
        await engine.dispose()
