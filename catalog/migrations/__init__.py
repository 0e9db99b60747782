"""The schema's history (Alembic), shipped inside the package and run from code.

One instance migrates at a time: the others wait for it and then find nothing to do.
"""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.engines import Purpose, create_engine
from catalog.errors import StartFailed
from catalog.settings import Settings

Dialect = Literal["sqlite", "mysql", "mariadb"]

LOCK_PATIENCE_SECONDS = 60
"""How long an instance waits for another one's migration before it gives up."""


class ConcurrentMigration(Exception):
    """Another instance migrates at the same time, as it can at another node of a cluster.

    Whoever tries again goes on where the other one stands.
    """


def _config(**attributes: Any) -> Config:
    config = Config(output_buffer=attributes.pop("output", None))
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes.update(attributes)
    return config


def head_revision() -> str:
    """The revision that this release's models describe."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise StartFailed("The package holds no migrations.")
    return head


def history() -> list[str]:
    """Every revision that this release knows, oldest first."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return [script.revision for script in scripts][::-1]


def known_revisions() -> frozenset[str]:
    """The same as a set; a database at another one is newer than this release."""
    return frozenset(history())


async def current_revision(connection: AsyncConnection) -> str | None:
    """The revision that the database is at; None when it is empty."""
    return await connection.run_sync(_current_revision)


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@asynccontextmanager
async def exclusive(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """A connection that no other instance holds at the same time, for work at the schema.

    SQLite's own write lock does it there, and all the work is one transaction. The servers commit
    around every DDL statement, so a named lock of theirs stands in. Galera keeps it per node; so
    migrations bear being run twice at once, see ``ConcurrentMigration``.

    Raises:
        StartFailed: another instance held it for longer than a minute.
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
    # The lock belongs to the server and not to a database of it, and its name has 64 characters.
    name = "catalog-" + blake2b(database.encode(), digest_size=16).hexdigest()
    taken = await connection.scalar(
        text("SELECT GET_LOCK(:name, :seconds)"), {"name": name, "seconds": LOCK_PATIENCE_SECONDS}
    )
    if taken != 1:
        raise StartFailed(
            f"Another instance has been migrating the database for {LOCK_PATIENCE_SECONDS} seconds."
        )
    try:
        yield
    finally:
        # A connection that was lost has lost the lock with it, and would hide why by failing here.
        if not connection.invalidated:
            await connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})


async def upgrade(connection: AsyncConnection, revision: str = "head") -> None:
    """Bring the schema forward to a revision; nothing happens when it is there already.

    Args:
        connection: one from ``exclusive``.
        revision: a revision or Alembic's word for one, such as ``head`` or ``+1``.

    Raises:
        StartFailed: the database is newer than this release, or there is no such revision.
        ConcurrentMigration: try again.
    """
    await _run(connection, command.upgrade, revision)


async def downgrade(connection: AsyncConnection, revision: str) -> None:
    """Take the schema back to a revision, or to nothing with ``base``; its data is lost.

    Raises:
        StartFailed: as ``upgrade``.
    """
    await _run(connection, command.downgrade, revision)


async def _run(connection: AsyncConnection, run: Any, revision: str) -> None:
    current = await current_revision(connection)
    if current is not None and current not in known_revisions():
        raise StartFailed(
            f"The database is at revision {current}, which is newer than this release."
        )
    try:
        await connection.run_sync(lambda sync: run(_config(connection=sync), revision))
    except CommandError as error:
        if await current_revision(connection) != current:
            # It had begun, and found the revision to be another one than it had left.
            raise ConcurrentMigration(str(error)) from error
        raise StartFailed(f"{error}.") from None


def upgrade_sql(revision: str = "head", *, dialect: Dialect) -> str:
    """The statements that bring an empty database to a revision, for those who run SQL by hand.

    The dialect must be named, because a URL does not tell MariaDB from MySQL and nothing is asked.

    Raises:
        StartFailed: there is no such revision.
    """
    output = io.StringIO()
    try:
        command.upgrade(_config(output=output, dialect=dialect), revision, sql=True)
    except CommandError as error:
        raise StartFailed(f"{error}.") from None
    return output.getvalue()
