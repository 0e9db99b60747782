"""``catalog end-sessions``."""

import click
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth import accounts
from catalog.auth.tokens import sessions
from catalog.cli.base import encodable, run, settings_for_command
from catalog.cli.schema import require_schema
from catalog.db.database import Database
from catalog.settings import Settings


@click.command("end-sessions")
@click.argument("login", callback=encodable, required=False)
@click.option("--all", "everyone", is_flag=True, help="End the sessions of all accounts.")
def end_sessions(login: str | None, everyone: bool) -> None:
    """End all sessions of an account, or of all accounts.

    LOGIN is a username or an e-mail address. Every running instance refuses tokens of
    the ended sessions within two seconds.
    """
    if (login is None) == (not everyone):
        raise click.UsageError("Name an account, or use --all.")
    ended = run(_end(settings_for_command(), login))
    click.echo(f"Ended sessions: {ended}.")


async def _end(settings: Settings, login: str | None) -> int:
    database = Database(settings)

    async def work(session: AsyncSession) -> int:
        await require_schema(await session.connection())
        if login is None:
            return await sessions.end_everyone(session)
        return await accounts.end_sessions(session, login=login)

    try:
        return await database.transaction(work)
    finally:
        await database.close()
