"""``catalog export``."""

import os
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

import click

from catalog.cli.base import run, settings_for_command
from catalog.cli.import_ import FORMATS_BY_NAME, form_of
from catalog.cli.schema import require_schema
from catalog.db.database import Database
from catalog.products import queries
from catalog.products.bulk import exporting
from catalog.products.bulk.formats import Format
from catalog.products.changes import change_log
from catalog.products.models import ChangeId
from catalog.products.selection import Selection
from catalog.settings import Settings

_OLDEST_FIRST = Selection(sort="id")


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS_BY_NAME)),
    help="Output format; by default that of the file name's extension.",
)
def export(file: Path | None, format_name: str | None) -> None:
    """Write all products, the oldest first, as NDJSON or CSV.

    Writes to standard output, or to FILE, which is replaced only when the export is complete.
    Prints the position, and the change, from which to follow later changes on standard error.
    """
    form = form_of(file, format_name)
    settings = settings_for_command()
    if file is None:
        change = run(_export(settings, form, sys.stdout.buffer))
    else:
        change = _replace(file, settings, form)
    for name, value in change_log.position_headers(change).items():
        click.echo(f"{name}: {value}", err=True)


def _replace(file: Path, settings: Settings, form: Format) -> ChangeId:
    """Export to a temporary file beside the target, and replace the target at the end."""
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as text:
        try:
            change = run(_export(settings, form, text))
            text.flush()
            os.fsync(text.fileno())
            # The mode of any new file; a temporary one is private to its owner.
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(text.fileno(), 0o666 & ~mask)
            Path(text.name).replace(file)
        except BaseException:
            Path(text.name).unlink(missing_ok=True)
            raise
    return change


async def _export(settings: Settings, form: Format, text: IO[bytes]) -> ChangeId:
    database = Database(settings)
    try:
        async with database.connection() as connection:
            await require_schema(connection)
            total = await connection.scalar(queries.count(filters=frozenset()))
            change = await change_log.current_change(connection)
        with click.progressbar(
            length=total or 0, label="Exporting", file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as bar:
            await _write(database, form, text, bar.update)
        return change
    finally:
        await database.close()


async def _write(
    database: Database, form: Format, text: IO[bytes], advance: Callable[[int], None]
) -> None:
    pieces = exporting.export_products(database, form, _OLDEST_FIRST, advance=advance)
    async with aclosing(pieces):
        async for piece in pieces:
            # Blocking is harmless: nothing else runs on this event loop.
            text.write(piece)
