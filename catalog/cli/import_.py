"""``catalog import``."""

import sys
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

import click
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth import accounts
from catalog.cli.base import encodable, run, settings_for_command
from catalog.cli.product_files import (
    FORMATS_BY_NAME,
    counted,
    form_of,
    is_standard,
    opened_text,
)
from catalog.cli.schema import require_schema
from catalog.db.database import Database
from catalog.errors import CatalogError, LinesInvalid, MalformedRequest
from catalog.products.bulk import importing
from catalog.products.bulk.chunks import ImportResult
from catalog.products.bulk.formats import CSV, Reader, ReaderOptions
from catalog.settings import Settings

_PIECE_BYTES = 64 * 1024


@click.command("import")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option(
    "--owner", required=True, callback=encodable, help="Account that will own the products."
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS_BY_NAME)),
    help="Input format; by default that of the file name's extension.",
)
@click.option(
    "--charset",
    default="utf-8",
    type=click.Choice(list(CSV.charsets), case_sensitive=False),
    metavar="NAME",
    show_default=True,
    help="Encoding of a CSV file without a byte order mark, such as windows-1252.",
)
@click.option("--no-guard", is_flag=True, help="CSV: keep apostrophes before formulas.")
@click.option(
    "--mode",
    type=click.Choice(["create", "upsert"]),
    default="create",
    show_default=True,
    help="upsert: change the products that lines name by id or key, and create the others.",
)
@click.option("--atomic", is_flag=True, help="Write all products or none.")
@click.option("--dry-run", is_flag=True, help="Validate the file and write nothing.")
def import_(
    file: Path,
    owner: str,
    format_name: str | None,
    charset: str,
    no_guard: bool,
    mode: str,
    atomic: bool,
    dry_run: bool,
) -> None:
    """Create the products of a FILE, as NDJSON or CSV; - is standard input.

    OWNER is a username or an e-mail address. A file whose name ends with .gz is decompressed.
    Invalid lines are skipped and reported on standard error, and the exit status is 1.
    """
    form = form_of(file, format_name)
    if charset not in form.charsets:
        raise click.UsageError(f"{form.name} is always UTF-8.")
    upsert = mode == "upsert"
    reader = form.reader(ReaderOptions(form.charsets[charset], guard=not no_guard, upsert=upsert))
    settings = settings_for_command()
    with (
        opened_text(file) as (text, raw),
        click.progressbar(
            length=0 if is_standard(file) else file.stat().st_size,
            label="Importing",
            file=sys.stderr,
            hidden=is_standard(file) or not sys.stderr.isatty(),
        ) as bar,
    ):
        pieces = _pieces(text, lambda: bar.update(raw.tell() - bar.pos) if not bar.hidden else None)
        imported = run(
            _import(settings, pieces, reader, owner, upsert=upsert, atomic=atomic, dry_run=dry_run)
        )
    for fault in imported.faults:
        click.echo(f"Line {fault.line}: {fault.message}", err=True)
    click.echo(_summary(imported, dry_run=dry_run))
    if imported.failed:
        sys.exit(1)


def _summary(imported: ImportResult, *, dry_run: bool) -> str:
    create, update = ("Would create", "update") if dry_run else ("Created", "updated")
    done = f"{create} {counted(imported.created, 'product')}"
    if imported.has_upserts:
        done += f", {update} {imported.updated:,}; {imported.unchanged:,} unchanged"
    return f"{done}; {counted(imported.failed, 'line')} failed."


async def _pieces(text: IO[bytes], advance: Callable[[], None]) -> AsyncIterator[bytes]:
    # Blocking is harmless: nothing else runs on this event loop.
    try:
        while piece := text.read(_PIECE_BYTES):
            yield piece
            advance()
    except (EOFError, zlib.error):
        raise MalformedRequest("The file is not valid gzip, or its end is missing.") from None


async def _import(
    settings: Settings,
    pieces: AsyncIterator[bytes],
    reader: Reader,
    owner: str,
    *,
    upsert: bool,
    atomic: bool,
    dry_run: bool,
) -> ImportResult:
    database = Database(settings)

    async def account(session: AsyncSession) -> int:
        await require_schema(await session.connection())
        return await accounts.account_id(session, login=owner)

    try:
        return await importing.import_products(
            database,
            pieces,
            reader,
            owner_id=await database.transaction(account),
            upsert=upsert,
            atomic=atomic,
            dry_run=dry_run,
        )
    except CatalogError as error:
        _tell(error)
        raise
    finally:
        await database.close()


def _tell(error: CatalogError) -> None:
    """Print the invalid lines of an import that failed as a whole, and how far it came."""
    faults = error.members.get("errors")
    for fault in faults if isinstance(faults, list) else []:
        click.echo(f"Line {fault['line']}: {fault['message']}", err=True)
    if not isinstance(error, LinesInvalid) and "line" in error.members:
        created, line = error.members["created"], error.members["line"]
        assert isinstance(created, int)  # noqa: S101 (tells mypy)
        click.echo(f"Created {counted(created, 'product')}, up to line {line:,}.", err=True)
