"""``catalog migrate``."""

from collections.abc import Sequence
from typing import cast, get_args

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog import migrations
from catalog.bootstrap import at_schema
from catalog.cli.base import run, settings_for_command
from catalog.settings import Settings

EMPTY = "base"
"""Alembic's name for a database without tables."""


@click.command()
@click.argument("revision", default="head")
@click.option("--down", is_flag=True, help="Allow a downgrade, which drops tables and columns.")
@click.option("--sql", is_flag=True, help="Print the SQL for an empty database without running it.")
@click.option(
    "--dialect",
    type=click.Choice(get_args(migrations.Dialect)),
    help="Dialect of the SQL; by default that of DATABASE_URL, where any server counts as MySQL.",
)
def migrate(revision: str, *, down: bool, sql: bool, dialect: str | None) -> None:
    """Migrate the database's schema to REVISION, by default to the one this release requires.

    Waits up to two minutes for the database, never runs in two instances at once, and does nothing
    if the schema is current: safe to run at every start.

    An earlier REVISION, or `base` for no tables at all, needs --down. Data in the tables and
    columns that it drops is lost.
    """
    history = migrations.history()
    target = history[-1] if revision == "head" else revision
    if target not in {EMPTY, *history}:
        known = ", ".join([EMPTY, *history])
        raise click.BadParameter(f"must be one of {known} and head.", param_hint="REVISION")
    if sql:
        if target == EMPTY or down:
            raise click.UsageError("--sql supports only upgrades from an empty database.")
        click.echo(migrations.upgrade_sql(target, dialect=_dialect(dialect)), nl=False)
        return
    if dialect:
        raise click.UsageError("--dialect requires --sql; otherwise the database determines it.")
    before = run(_migrate(settings_for_command(), target, history, down=down))
    if before == target:
        click.echo(f"Nothing to do: the database is at {target}.")
    else:
        click.echo(f"Migrated the database from {before} to {target}.")


def _dialect(given: str | None) -> migrations.Dialect:
    if given is None:
        given = "sqlite" if settings_for_command().embedded else "mysql"
    return cast("migrations.Dialect", given)


async def _migrate(settings: Settings, target: str, history: Sequence[str], *, down: bool) -> str:
    """Migrate and return the previous revision."""
    order = [EMPTY, *history]

    async def work(connection: AsyncConnection) -> str:
        before = await migrations.current_revision(connection) or EMPTY
        # A revision that this release does not know is newer; upgrading refuses it.
        position = order.index(before) if before in order else -1
        if order.index(target) == position:
            return before
        if order.index(target) > position:
            if down and position >= 0:
                raise click.UsageError(
                    f"The database is at {before}; {target} is later, so it needs no --down."
                )
            await migrations.upgrade(connection, target)
            return before
        if not down:
            raise click.UsageError(
                f"The database is at {before}; downgrading to {target} deletes data. "
                "To do so anyway, add --down."
            )
        await migrations.downgrade(connection, target)
        return before

    return await at_schema(settings, work)
