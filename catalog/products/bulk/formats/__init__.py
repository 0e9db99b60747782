"""Bulk formats: newline-delimited JSON and CSV (RFC 4180), readers and writers.

Both are read and written in pieces of any size, and buffer no more than one line may have.
"""

from collections.abc import Mapping

from catalog.products.bulk.formats.csv import CSV
from catalog.products.bulk.formats.format import (
    Format,
    Reader,
    ReaderOptions,
    RowWriter,
    WriterOptions,
)
from catalog.products.bulk.formats.lines import (
    LineFault,
    Parsed,
    ParsedProduct,
    UnreadLines,
    UpsertLine,
    rendered,
)
from catalog.products.bulk.formats.ndjson import NDJSON

__all__ = [
    "CSV",
    "FORMATS",
    "IMPORTED",
    "NDJSON",
    "Format",
    "LineFault",
    "Parsed",
    "ParsedProduct",
    "Reader",
    "ReaderOptions",
    "RowWriter",
    "UnreadLines",
    "UpsertLine",
    "WriterOptions",
    "rendered",
]

FORMATS: Mapping[str, Format] = {each.media_type: each for each in (NDJSON, CSV)}
"""Formats by the media type of an export."""

IMPORTED: Mapping[str, Format] = {
    **FORMATS,
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
    "application/x-jsonlines": NDJSON,
    "application/csv": CSV,
}
"""Formats by the media type of an import: as exported first, then others in use. nginx has the
same list, to let these bodies have any size."""
