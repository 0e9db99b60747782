"""Writer of CSV records (RFC 4180)."""

import codecs
import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

from catalog.products.bulk.formats.format import WriterOptions
from catalog.products.bulk.formats.formula_guard import guarded

_TEXTS = {"name", "description", "key"}


class CsvWriter:
    """Writer of CSV records after a header, each ending with CRLF; null is an empty cell.

    Args:
        fields: the fields of a product to write, in this order.
        options: whether to write a byte order mark, and to guard texts against formulas.
    """

    def __init__(self, fields: Sequence[str], options: WriterOptions) -> None:
        self._fields = fields
        self._mark = codecs.BOM_UTF8 if options.bom else b""
        guards = _TEXTS if options.guard else set()
        self._texts = [index for index, field in enumerate(fields) if field in guards]

    def head(self) -> bytes:
        """Return the text before the first product."""
        return self._mark + _records([self._fields])

    def write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """Encode rows; see ``RowWriter.write``."""
        columns: list[Iterable[Any]] = list(zip(*rows, strict=True))
        for index in self._texts if columns else ():
            columns[index] = [None if text is None else guarded(text) for text in columns[index]]
        return _records(zip(*columns, strict=True))


def _records(rows: Iterable[Sequence[Any]]) -> bytes:
    out = StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
