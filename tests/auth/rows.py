"""Helpers that insert, read and shift in time the rows behind the tests of auth."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Executable, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import service
from catalog.auth.models import Role, User
from catalog.db.columns import Base
from catalog.db.database import Database
from tests.db.support import run_on
from tests.support import PASSWORD

Row = dict[str, Any]


async def add_admin(session: AsyncSession, name: str = "grace") -> int:
    """Insert an administrator and return its id; the password stands in for its hash."""
    admin = await service.sign_up(
        session,
        username=name,
        email=f"{name}@example.com",
        password_hash=PASSWORD,
        role=Role.ADMIN,
    )
    return admin.id


async def disable(session: AsyncSession, user_id: int | None) -> None:
    """Disable an account, without ending its sessions."""
    await session.execute(update(User).where(User.id == user_id).values(disabled=True))


async def rows_of(database: Database, model: type[Base]) -> list[Row]:
    """Return all rows of a table in the order of its primary key."""
    table = model.__table__

    async def read(connection: AsyncConnection) -> list[Row]:
        statement = select(table).order_by(*table.primary_key)
        return [dict(row._mapping) for row in await connection.execute(statement)]

    return await run_on(database.connection(), read)


async def run(database: Database, *statements: Executable) -> None:
    """Run statements in one transaction."""

    async def work(session: AsyncSession) -> None:
        for statement in statements:
            await session.execute(statement, execution_options={"synchronize_session": False})

    await database.transaction(work)


async def shift(database: Database, model: type[Base], by: timedelta, *columns: str) -> None:
    """Shift the given time columns in all rows of a table; a negative delta moves them back."""
    (key,) = model.__table__.primary_key
    for row in await rows_of(database, model):
        moved = {column: row[column] + by for column in columns}
        await run(database, update(model).where(key == row[key.name]).values(moved))
