"""Bootstrap before the first request: migrates the schema and creates the first administrator."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from secrets import token_urlsafe
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog import migrations
from catalog.auth import accounts
from catalog.auth import service as auth_service
from catalog.auth.models import Role
from catalog.auth.passwords.hashing import Passwords
from catalog.db.error_translation import is_permanent
from catalog.errors import DuplicateValue, StartFailed
from catalog.observability.logs import logger
from catalog.settings import Settings

T = TypeVar("T")

DATABASE_START_SECONDS = 120.0
"""Time to wait for an unreachable database at start.

Allows for a server that starts at the same time, its first start and its crash recovery included.
"""

_log = logger(__name__)


async def prepare(settings: Settings) -> None:
    """Migrate the schema and create the first administrator, on one instance at a time.

    Retries until the database is reachable. A generated password is written to standard output,
    once and nowhere else.

    Raises:
        StartFailed: the database stays unreachable or rejects the connection, or its schema is
            newer than this release.
        OperatorError: the administrator's name, address or password is not acceptable.
    """

    async def work(connection: AsyncConnection) -> None:
        await migrations.upgrade(connection)
        await _ensure_admin(connection, settings)

    await at_schema(settings, work)


async def at_schema(settings: Settings, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Run ``work`` on the schema while no other instance does.

    Retries until the database is reachable, as when all services start at the same time; ``work``
    may then run again from its start.

    Raises:
        StartFailed: the database stays unreachable or rejects the connection.
    """
    if settings.embedded:
        _make_file(settings)
    deadline = time.monotonic() + DATABASE_START_SECONDS
    while True:
        try:
            async with migrations.exclusive(settings) as connection:
                return await work(connection)
        except (DBAPIError, OSError, migrations.ConcurrentMigration) as error:
            cause = getattr(error, "orig", None) or error
            reason = str(cause.args[-1] if cause.args else cause)
            if is_permanent(error) or time.monotonic() > deadline:
                raise StartFailed(f"The database cannot be used: {reason}.") from error
            _log.warning("waiting_for_database", reason=reason)
            await asyncio.sleep(0.5)


def _make_file(settings: Settings) -> None:
    """Create the SQLite file with mode 0600, because it holds password hashes.

    SQLite gives the files that it creates beside it the same mode.

    Raises:
        StartFailed: the file cannot be created.
    """
    path = Path(str(settings.database_url.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        raise StartFailed(f"The database {path} cannot be created: {error.strerror}.") from None


async def _ensure_admin(connection: AsyncConnection, settings: Settings) -> None:
    async with AsyncSession(
        connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
    ) as session:
        if await accounts.has_admin(session):
            return
        given = settings.admin_password
        password = given.get_secret_value() if given else token_urlsafe(15)
        auth_service.check_admin(
            username=settings.admin_username,
            email=settings.admin_email,
            password=password,
            min_length=settings.password_min_length,
            refuse_guessable=settings.refuse_guessable_passwords,
        )
        passwords = Passwords(settings)
        try:
            await auth_service.sign_up(
                session,
                username=settings.admin_username,
                email=settings.admin_email,
                password_hash=await passwords.hash(password),
                role=Role.ADMIN,
            )
            await session.commit()
        except DuplicateValue:
            # No reason not to start: the name or address belongs to an existing account.
            _log.warning("admin_missing", reason="ADMIN_USERNAME or ADMIN_EMAIL is taken")
            return
        finally:
            passwords.close()
    _log.info("admin_created", username=settings.admin_username)
    if given is None:
        sys.stdout.write(
            f"Created the administrator {settings.admin_username!r}. Password, shown only now: "
            f"{password}\n"
        )
        sys.stdout.flush()
