"""``catalog import``."""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

import click
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth import accounts
from catalog.cli.base import encodable, run, settings_for_command
from catalog.cli.schema import require_schema
from catalog.db.database import Database
from catalog.errors import CatalogError, LinesInvalid
from catalog.products.bulk import importing
from catalog.products.bulk.chunks import ImportResult
from catalog.products.bulk.formats import FORMATS, Format
from catalog.settings import Settings

FORMATS_BY_NAME = {form.name: form for form in FORMATS.values()}

_PIECE_BYTES = 64 * 1024


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--owner", required=True, callback=encodable, help="Account that will own the products."
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS_BY_NAME)),
    help="Input format; by default that of the file name's extension.",
)
@click.option("--atomic", is_flag=True, help="Create all products or none.")
@click.option("--dry-run", is_flag=True, help="Validate the file and write nothing.")
def import_(file: Path, owner: str, format_name: str | None, atomic: bool, dry_run: bool) -> None:
    """Create the products of a FILE, as NDJSON or CSV.

    OWNER is a username or an e-mail address. Invalid lines are skipped and reported on standard
    error, and the exit status is 1.
    """
    form = form_of(file, format_name)
    settings = settings_for_command()
    with (
        file.open("rb") as text,
        click.progressbar(
            length=file.stat().st_size,
            label="Importing",
            file=sys.stderr,
            hidden=not sys.stderr.isatty(),
        ) as bar,
    ):
        pieces = _pieces(text, bar.update)
        imported = run(_import(settings, pieces, form, owner, atomic=atomic, dry_run=dry_run))
    for fault in imported.faults:
        place = f" {fault.pointer}" if fault.pointer else ""
        click.echo(f"Line {fault.line}{place}: {fault.message}", err=True)
    would = "Would create" if dry_run else "Created"
    click.echo(f"{would} {imported.created:,} products; {imported.failed:,} invalid lines.")
    if imported.failed:
        sys.exit(1)


def form_of(file: Path | None, format_name: str | None) -> Format:
    """Return the named format, or that of the file's suffix."""
    name = format_name or (file.suffix.removeprefix(".") if file else "")
    if name not in FORMATS_BY_NAME:
        raise click.UsageError(f"Specify the format: --format {' or '.join(FORMATS_BY_NAME)}.")
    return FORMATS_BY_NAME[name]


async def _pieces(text: IO[bytes], advance: Callable[[int], None]) -> AsyncIterator[bytes]:
    # Blocking is harmless: nothing else runs on this event loop.
    while piece := text.read(_PIECE_BYTES):
        yield piece
        advance(len(piece))


async def _import(
    settings: Settings,
    pieces: AsyncIterator[bytes],
    form: Format,
    owner: str,
    *,
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
            form.reader(),
            owner_id=await database.transaction(account),
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
        place = f" {fault['pointer']}" if "pointer" in fault else ""
        click.echo(f"Line {fault['line']}{place}: {fault['message']}", err=True)
    if not isinstance(error, LinesInvalid) and "line" in error.members:
        created, line = error.members["created"], error.members["line"]
        click.echo(f"Created {created:,} products, up to line {line:,}.", err=True)
