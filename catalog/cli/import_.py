"""``catalog import``."""

import asyncio
import gzip
import os
import stat
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from io import BufferedIOBase, IOBase, UnsupportedOperation
from pathlib import Path

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
    refuse_unless_csv,
)
from catalog.cli.schema import require_schema
from catalog.db.database import Database
from catalog.errors import CatalogError, MalformedRequest
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
    refuse_unless_csv(form, no_guard=no_guard)
    upsert = mode == "upsert"
    is_regular = not is_standard(file) and file.is_file()
    reader = form.reader(ReaderOptions(form.charsets[charset], guard=not no_guard, upsert=upsert))
    settings = settings_for_command()
    imported = ImportResult(has_upserts=upsert)
    try:
        with (
            opened_text(file) as (text, raw),
            click.progressbar(
                length=file.stat().st_size if is_regular else 0,
                label="Importing",
                file=sys.stderr,
                # Only a regular file has a size and a position.
                hidden=not is_regular or not sys.stderr.isatty(),
            ) as bar,
        ):
            source = _Source(
                text, raw, lambda: bar.update(raw.tell() - bar.pos) if not bar.hidden else None
            )
            work = _import(
                settings, source, reader, owner, imported, atomic=atomic, dry_run=dry_run
            )
            run(work)
    except BaseException as error:
        # Below the progress bar.
        _tell_faults(error, imported)
        if imported.line and not (atomic or dry_run):
            click.echo(f"{_done(imported)}, up to line {imported.line:,}.", err=True)
        raise
    for fault in imported.faults:
        click.echo(f"Line {fault.line}: {fault.message}", err=True)
    click.echo(_summary(imported, dry_run=dry_run))
    if imported.failed:
        sys.exit(1)


def _summary(imported: ImportResult, *, dry_run: bool) -> str:
    return f"{_done(imported, dry_run=dry_run)}; {counted(imported.failed, 'line')} failed."


def _done(imported: ImportResult, *, dry_run: bool = False) -> str:
    create, update = ("Would create", "update") if dry_run else ("Created", "updated")
    done = f"{create} {counted(imported.created, 'product')}"
    if imported.has_upserts:
        done += f", {update} {imported.updated:,}; {imported.unchanged:,} unchanged"
    return done


class _Source:
    """Text of an import, read as it comes.

    Args:
        text: the uncompressed text.
        raw: the file itself; a pipe or a terminal is waited for, and meanwhile what was read before
            is written.
        advance: called after each piece.
    """

    def __init__(self, text: BufferedIOBase, raw: IOBase, advance: Callable[[], None]) -> None:
        self._text = text
        self._raw = raw
        self._advance = advance
        self._wake = asyncio.Event()
        self._is_stopped = False

    def stop(self) -> None:
        """Cancel the reader of the pieces at its next piece."""
        self._is_stopped = True
        self._wake.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the text.

        Raises:
            MalformedRequest: it is no valid gzip.
            asyncio.CancelledError: ``stop`` was called.
        """
        try:
            while piece := await self._read():
                yield piece
                self._advance()
        except (EOFError, zlib.error, gzip.BadGzipFile):
            fault = "The file is not valid gzip, or its end is missing or damaged."
            raise MalformedRequest(fault) from None

    async def _read(self) -> bytes:
        await self._until_readable()
        if self._is_stopped:
            raise asyncio.CancelledError
        # Does not block the event loop for long: at most until a disk has answered.
        return self._text.read1(_PIECE_BYTES)

    async def _until_readable(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            handle = self._raw.fileno()
            if stat.S_ISREG(os.fstat(handle).st_mode):
                return
            loop.add_reader(handle, self._wake.set)
        except (UnsupportedOperation, PermissionError):
            # Memory, or a device such as /dev/null: never waits.
            return
        try:
            await self._wake.wait()
            if not self._is_stopped:
                self._wake.clear()
        finally:
            loop.remove_reader(handle)


async def _import(
    settings: Settings,
    source: _Source,
    reader: Reader,
    owner: str,
    imported: ImportResult,
    *,
    atomic: bool,
    dry_run: bool,
) -> None:
    database = Database(settings)

    async def account(session: AsyncSession) -> int:
        await require_schema(await session.connection())
        return await accounts.account_id(session, login=owner)

    try:
        owner_id = await database.transaction(account)
        work = asyncio.create_task(
            importing.import_products(
                database,
                source.pieces(),
                reader,
                owner_id=owner_id,
                upsert=imported.has_upserts,
                atomic=atomic,
                dry_run=dry_run,
                imported=imported,
            )
        )
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            # Interrupted. What is being written is completed, so that the report is true.
            source.stop()
            await work
    finally:
        await database.close()


def _tell_faults(error: BaseException, imported: ImportResult) -> None:
    """Print the invalid lines of an import that failed as a whole."""
    members = error.members if isinstance(error, CatalogError) else imported.rendered()
    faults = members.get("errors")
    for fault in faults if isinstance(faults, list) else []:
        click.echo(f"Line {fault['line']}: {fault['message']}", err=True)
