"""Schema migrations (Alembic), shipped inside the package and run from code.

One instance migrates at a time; the others wait for it and then have nothing left to do.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.engines import Purpose, create_engine
from catalog.errors import StartFailed
from catalog.settings import Settings

if TYPE_CHECKING:
    from catalog.migrations.alembic_commands import Direction

Dialect = Literal["sqlite", "mysql", "mariadb"]

LOCK_WAIT_SECONDS = 60
"""Time-out of an instance that waits for another one's migration."""


class ConcurrentMigration(Exception):
    """Another instance migrates at the same time, as is possible at another node of a cluster.

    A retry continues from the revision that the other instance has reached.
    """


@cache
def history() -> tuple[str, ...]:
    """List every revision that this release knows, oldest first, as its files are named.

    Raises:
        StartFailed: the package contains no migrations.
    """
    files = (Path(__file__).parent / "versions").glob("[0-9]*.py")
    revisions = tuple(sorted(file.name.partition("_")[0] for file in files))
    if not revisions:
        raise StartFailed("The package contains no migrations.")
    return revisions


def head_revision() -> str:
    """Return the revision that this release's models describe."""
    return history()[-1]


def known_revisions() -> frozenset[str]:
    """Return every revision that this release knows; a database at any other one is newer."""
    return frozenset(history())


async def current_revision(connection: AsyncConnection) -> str | None:
    """Return the database's revision; None when it is empty."""
    return await connection.run_sync(_current_revision)


def _current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


@asynccontextmanager
async def exclusive(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """Hold the migration lock, and provide a connection to migrate the schema.

    On SQLite it is the file's write lock, and all work is one transaction. The servers commit
    around every DDL statement, so a named lock is used there. Galera keeps named locks per node, so
    migrations tolerate concurrent runs, see ``ConcurrentMigration``.

    Raises:
        StartFailed: another instance held the lock for longer than ``LOCK_WAIT_SECONDS``.
    """
    engine = create_engine(settings, Purpose.MIGRATING)
    try:
        async with engine.connect() as connection:
            if settings.embedded:
                async with connection.begin():
                    yield connection
                return
            async with _named_lock(connection, str(settings.database_url.database)):
                yield connection
                await connection.commit()
    finally:
        await engine.dispose()


@asynccontextmanager
async def _named_lock(connection: AsyncConnection, database: str) -> AsyncIterator[None]:
    # Named locks are global to the server, so the name depends on the database. A digest keeps it
    # within 64 characters.
    name = "catalog-" + blake2b(database.encode(), digest_size=16).hexdigest()
    taken = await connection.scalar(
        text("SELECT GET_LOCK(:name, :seconds)"), {"name": name, "seconds": LOCK_WAIT_SECONDS}
    )
    if taken != 1:
        raise StartFailed(
            f"Another instance has been migrating the database for {LOCK_WAIT_SECONDS} seconds."
        )
    try:
        yield
    finally:
        # A lost connection has released the lock, and an error here would hide the cause.
        if not connection.invalidated:
            await connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})


async def upgrade(connection: AsyncConnection, revision: str = "head") -> None:
    """Upgrade the schema to a revision; idempotent.

    Args:
        connection: a connection from ``exclusive``.
        revision: a revision, or an Alembic symbol such as ``head`` or ``+1``.

    Raises:
        StartFailed: the database is newer than this release, or there is no such revision.
        ConcurrentMigration: another instance migrates too; retry.
    """
    await _run(connection, "upgrade", revision)


async def downgrade(connection: AsyncConnection, revision: str) -> None:
    """Downgrade the schema to a revision, or to empty with ``base``; the dropped data is lost.

    Raises:
        StartFailed: as ``upgrade``.
    """
    await _run(connection, "downgrade", revision)


async def _run(connection: AsyncConnection, direction: "Direction", revision: str) -> None:
    current = await current_revision(connection)
    if current is not None and current not in known_revisions():
        raise StartFailed(
            f"The database is at revision {current}, which is newer than this release."
        )
    if current == (head_revision() if revision == "head" else revision):
        return
    # Imported late, as the module says.
    from catalog.migrations import alembic_commands

    try:
        await connection.run_sync(alembic_commands.run, direction, revision)
    except alembic_commands.CommandError as error:
        if await current_revision(connection) != current:
            # The migration had begun, and then found a revision other than the one it had set.
            raise ConcurrentMigration(str(error)) from error
        raise StartFailed(f"{error}.") from None


def upgrade_sql(revision: str = "head", *, dialect: Dialect) -> str:
    """Return the SQL that upgrades an empty database to a revision, to be run by hand.

    The dialect is an argument because no connection is opened, and a URL does not distinguish
    MariaDB from MySQL.

    Raises:
        StartFailed: there is no such revision.
    """
    from catalog.migrations import alembic_commands

    try:
        return alembic_commands.script(revision, dialect=dialect)
    except alembic_commands.CommandError as error:
        raise StartFailed(f"{error}.") from None
