"""``catalog seed``."""

import sys
import time
from collections.abc import Callable

import click
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.passwords.hashing import Passwords
from catalog.auth.passwords.policy import check_choice
from catalog.auth.seed_data import make_accounts
from catalog.cli.base import encodable, run, settings_for_command
from catalog.cli.schema import require_schema
from catalog.db.database import Database
from catalog.errors import OperatorError
from catalog.products.seed_data import CHUNK_ROWS, make_samples
from catalog.products.service import insert_products
from catalog.settings import Settings

MAX_ROWS = 100_000_000


@click.command()
@click.option(
    "--users",
    type=click.IntRange(1, MAX_ROWS),
    default=100,
    show_default=True,
    help="Number of accounts that own the products.",
)
@click.option(
    "--products",
    type=click.IntRange(0, MAX_ROWS),
    default=1000,
    show_default=True,
    help="Number of products to add.",
)
@click.option(
    "--password",
    callback=encodable,
    help="Password of all new accounts; without it, signing in to them is impossible.",
)
@click.option(
    "--random-seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of the random generator; the same seed gives the same products.",
)
def seed(users: int, products: int, password: str | None, random_seed: int) -> None:
    """Fill the database with sample accounts and products, for trials and measurements.

    The accounts are the same each time: existing ones are reused and keep their passwords. Products
    are always added, so a second run doubles their number.

    The same options give the same rows on every database, including their times; only the ids
    depend on the database.
    """
    settings = settings_for_command()
    began = time.monotonic()
    with click.progressbar(
        length=users + products, label="Seeding", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        new_users = run(_seed(settings, users, products, password, random_seed, bar.update))
    seconds = time.monotonic() - began
    rate = (new_users + products) / seconds
    click.echo(
        f"Added {products:,} products and {new_users:,} of {users:,} users in {seconds:.1f} s: "
        f"{rate:,.0f} rows/s."
    )


async def _seed(
    settings: Settings,
    users: int,
    products: int,
    password: str | None,
    random_seed: int,
    advance: Callable[[int], None],
) -> int:
    """Create the rows, a transaction for each chunk; return the number of new users."""
    password_hash = await _hash(settings, password) if password else None
    database = Database(settings)
    try:
        await database.transaction(_require_schema)
        owner_ids: list[int] = []
        new_users = 0
        for first in range(1, users + 1, CHUNK_ROWS):
            numbers = range(first, min(first + CHUNK_ROWS, users + 1))
            ids, new = await database.transaction(
                make_accounts, numbers=numbers, password_hash=password_hash
            )
            owner_ids += ids
            new_users += new
            advance(len(ids))
        for new_products in make_samples(products, owner_ids=owner_ids, seed=random_seed):
            await database.transaction(insert_products, new_products)
            advance(len(new_products))
        return new_users
    finally:
        await database.close()


async def _require_schema(session: AsyncSession) -> None:
    await require_schema(await session.connection())


async def _hash(settings: Settings, password: str) -> str:
    try:
        check_choice(
            password,
            min_length=settings.password_min_length,
            refuse_guessable=settings.refuse_guessable_passwords,
            # It is for many accounts, not a particular one.
            username="",
            email="",
        )
    except ValueError as fault:
        raise OperatorError(f"A password {fault}.") from None
    passwords = Passwords(settings)
    try:
        return await passwords.hash(password)
    finally:
        passwords.close()
