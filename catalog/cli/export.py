"""``catalog export``."""

import gzip
import os
import stat
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

import click

from catalog.cli.base import run, settings_for_command
from catalog.cli.product_files import (
    FORMATS_BY_NAME,
    form_of,
    is_compressed,
    is_standard,
    refuse_unless_csv,
    suffix_of,
)
from catalog.cli.schema import require_schema
from catalog.db.database import Database
from catalog.products import queries
from catalog.products.bulk import exporting
from catalog.products.bulk.formats import Format, WriterOptions
from catalog.products.changes import change_counter, change_ids
from catalog.products.changes.change_ids import ChangeId
from catalog.products.selection import Selection
from catalog.settings import Settings

Sink = IO[bytes] | gzip.GzipFile

_OLDEST_FIRST = Selection(sort="id")


@click.command()
@click.argument(
    "file", required=False, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS_BY_NAME)),
    help="Output format; by default that of the file name's extension.",
)
@click.option("--bom", is_flag=True, help="CSV: begin with a byte order mark, as Excel wants it.")
@click.option("--no-guard", is_flag=True, help="CSV: no apostrophes before formulas.")
def export(file: Path | None, format_name: str | None, bom: bool, no_guard: bool) -> None:
    """Write all products, the oldest first, as NDJSON or CSV.

    Writes to standard output, also as -, or to FILE, which is replaced only when the export is
    complete, and compressed if its name ends with .gz. A FIFO or a device is written to directly.
    Prints the position, and the change, from which to follow later changes on standard error.
    """
    form = form_of(file, format_name)
    if format_name is None and suffix_of(file) == "tsv":
        raise click.UsageError(
            "CSV is exported with commas, not tabs: name the file .csv, or specify --format csv."
        )
    refuse_unless_csv(form, bom=bom, no_guard=no_guard)
    settings = settings_for_command()
    options = WriterOptions(bom, guard=not no_guard)
    if file is None or is_standard(file):
        change = run(_export(settings, form, options, sys.stdout.buffer))
    elif file.exists() and not file.is_file():
        with file.open("wb") as device:
            change = _export_to(device, file, settings, form, options)
    else:
        change = _replace(file, settings, form, options)
    for name, value in change_ids.position_headers(change).items():
        click.echo(f"{name}: {value}", err=True)


def _replace(file: Path, settings: Settings, form: Format, options: WriterOptions) -> ChangeId:
    """Export to a temporary file beside the target, and replace the target at the end."""
    # Not the link itself, which another file would silently take the place of.
    target = file.resolve()
    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as text:
        try:
            change = _export_to(text, file, settings, form, options)
            text.flush()
            os.fsync(text.fileno())
            os.fchmod(text.fileno(), _mode(target))
            Path(text.name).replace(target)
        except BaseException:
            Path(text.name).unlink(missing_ok=True)
            raise
    return change


def _export_to(
    text: IO[bytes], file: Path, settings: Settings, form: Format, options: WriterOptions
) -> ChangeId:
    if not is_compressed(file):
        return run(_export(settings, form, options, text))
    with gzip.open(text, "wb", compresslevel=6) as packed:
        return run(_export(settings, form, options, packed))


def _mode(target: Path) -> int:
    """Return the mode of a file, or that of a new one; a temporary one is private to its owner."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


async def _export(settings: Settings, form: Format, options: WriterOptions, text: Sink) -> ChangeId:
    database = Database(settings)
    try:
        async with database.connection() as connection:
            await require_schema(connection)
            total = await connection.scalar(queries.count(filters=frozenset()))
            change = await change_counter.current_change(connection)
        with click.progressbar(
            length=total or 0, label="Exporting", file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as bar:
            await _write(database, form, options, text, bar.update)
        return change
    finally:
        await database.close()


async def _write(
    database: Database,
    form: Format,
    options: WriterOptions,
    text: Sink,
    advance: Callable[[int], None],
) -> None:
    pieces = exporting.export_products(
        database, form, _OLDEST_FIRST, options=options, advance=advance
    )
    async with aclosing(pieces):
        async for piece in pieces:
            # Blocking is harmless: nothing else runs on this event loop.
            text.write(piece)
