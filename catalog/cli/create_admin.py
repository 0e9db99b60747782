"""``catalog create-admin``."""

import sys
from secrets import token_urlsafe

import click
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.models import Role
from catalog.auth.passwords.hashing import Passwords
from catalog.auth.service import check_admin, sign_up
from catalog.cli.base import encodable, run, settings_for_command
from catalog.cli.schema import require_schema
from catalog.db.database import Database
from catalog.settings import Settings


@click.command("create-admin")
@click.option("--username", callback=encodable, help="Username; by default ADMIN_USERNAME.")
@click.option("--email", callback=encodable, help="E-mail address; by default ADMIN_EMAIL.")
@click.option(
    "--password",
    callback=encodable,
    help="Visible to other users in the process list; omit it to be prompted instead.",
)
def create_admin(username: str | None, email: str | None, password: str | None) -> None:
    """Create another administrator.

    Without options, ADMIN_USERNAME, ADMIN_EMAIL and ADMIN_PASSWORD describe it. With --username or
    --email, ADMIN_PASSWORD is not used: a password belongs to one account. If there is no password,
    the command prompts for one at a terminal; elsewhere it generates a random one and prints it
    once.
    """
    settings = settings_for_command()
    if password is None and username is None and email is None and settings.admin_password:
        password = settings.admin_password.get_secret_value()
    if password is None and sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    username = username or settings.admin_username
    chosen = password or token_urlsafe(15)
    run(_create(settings, username, email or settings.admin_email, chosen))
    click.echo(f"Created the administrator {username!r}.")
    if password is None:
        click.echo(f"Password, shown only now: {chosen}")


async def _create(settings: Settings, username: str, email: str, password: str) -> None:
    check_admin(
        username=username,
        email=email,
        password=password,
        min_length=settings.password_min_length,
        refuse_guessable=settings.refuse_guessable_passwords,
    )
    passwords = Passwords(settings)
    database = Database(settings)

    async def work(session: AsyncSession, password_hash: str) -> None:
        await require_schema(await session.connection())
        await sign_up(
            session, username=username, email=email, password_hash=password_hash, role=Role.ADMIN
        )

    try:
        await database.transaction(work, await passwords.hash(password))
    finally:
        passwords.close()
        await database.close()
