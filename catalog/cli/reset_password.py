"""``catalog reset-password``."""

from secrets import token_urlsafe

import click
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth import accounts
from catalog.auth.accounts import Ended
from catalog.auth.passwords.hashing import Passwords
from catalog.cli.base import encodable, run, settings_for_command
from catalog.cli.schema import require_schema
from catalog.db.database import Database
from catalog.settings import Settings


@click.command("reset-password")
@click.argument("login", callback=encodable)
def reset_password(login: str) -> None:
    """Set a new, random password for an account, end its sessions and revoke its API keys.

    LOGIN is its username or its e-mail address. The password is printed once; the owner should
    change it after signing in. For owners who have forgotten their password, and for accounts that
    have been compromised.
    """
    settings = settings_for_command()
    password = token_urlsafe(15)
    username, ended = run(_reset(settings, login, password))
    click.echo(
        f"Reset the password of {username!r}, ended its sessions: {len(ended.sessions)}, "
        f"and revoked its API keys: {len(ended.keys)}."
    )
    click.echo(f"Password, shown only now: {password}")


async def _reset(settings: Settings, login: str, password: str) -> tuple[str, Ended]:
    passwords = Passwords(settings)
    database = Database(settings)

    async def work(session: AsyncSession, password_hash: str) -> tuple[str, Ended]:
        await require_schema(await session.connection())
        return await accounts.reset_password(session, login=login, password_hash=password_hash)

    try:
        return await database.transaction(work, await passwords.hash(password))
    finally:
        passwords.close()
        await database.close()
