"""Files of products on the command line: their format, compression and standard streams."""

import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, IOBase
from pathlib import Path
from typing import cast

import click

from catalog.products.bulk.formats import CSV, FORMATS, NDJSON, Format

FORMATS_BY_NAME = {form.name: form for form in FORMATS.values()}

_SUFFIXES = {"jsonl": NDJSON, "tsv": CSV, **FORMATS_BY_NAME}
_COMPRESSED = ".gz"
_STANDARD = Path("-")


def is_standard(file: Path | None) -> bool:
    """Tell whether a file is the standard stream: ``-``, or none at all."""
    return file is None or file == _STANDARD


def form_of(file: Path | None, format_name: str | None) -> Format:
    """Return the named format, or that of the file's suffix without regard to case and ``.gz``.

    Raises:
        click.UsageError: neither names a format.
    """
    if format_name is not None:
        return FORMATS_BY_NAME[format_name]
    form = _SUFFIXES.get(suffix_of(file))
    if form is None:
        raise click.UsageError(f"Specify the format: --format {' or '.join(FORMATS_BY_NAME)}.")
    return form


def suffix_of(file: Path | None) -> str:
    """Return a file's suffix before ``.gz``, in small letters and without the dot."""
    return Path(file.name.lower().removesuffix(_COMPRESSED)).suffix[1:] if file else ""


def refuse_unless_csv(form: Format, **options: bool) -> None:
    """Refuse options of CSV for another format.

    Args:
        form: the format.
        options: whether each option is given, by its name with ``_`` for ``-``.

    Raises:
        click.UsageError: one is given.
    """
    for name, is_given in options.items():
        if is_given and form is not CSV:
            raise click.UsageError(f"--{name.replace('_', '-')} is only for CSV.")


def is_compressed(file: Path) -> bool:
    """Tell whether a file's name ends with ``.gz``."""
    return file.name.lower().endswith(_COMPRESSED)


@contextmanager
def opened_text(file: Path) -> Iterator[tuple[BufferedIOBase, IOBase]]:
    """Open a file, or standard input.

    Yields:
        the uncompressed text; and the file itself, whose position shows the progress.
    """
    if is_standard(file):
        standard_input = cast("BufferedIOBase", sys.stdin.buffer)
        yield standard_input, standard_input
        return
    if not is_compressed(file):
        with file.open("rb") as raw:
            yield raw, raw
        return
    # Without a buffer, which a pipe would have to fill before anything is decompressed.
    with file.open("rb", buffering=0) as packed, gzip.open(packed) as text:
        yield text, packed


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: ``1 product``, ``2,500 products``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
