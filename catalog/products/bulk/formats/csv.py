"""CSV (RFC 4180): records under a header, with line breaks in quoted cells."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from io import StringIO
from typing import Any

from catalog.errors import CatalogError, InvalidRequest, LinesInvalid, MalformedRequest
from catalog.http.replies.problems import MAX_FIELD_ERRORS, json_pointer
from catalog.products.bulk.formats.format import Format
from catalog.products.bulk.formats.formula_guard import guarded, unguarded
from catalog.products.bulk.formats.lines import (
    BLANK_LINES,
    LINE_TOO_LONG,
    LONG_LINE,
    MAX_LINE_BYTES,
    READ_ONLY,
    WRITABLE,
    Found,
    LineFault,
    Parsed,
    faults_of,
    rendered,
    validate,
    validate_fast,
)

MAX_COLUMNS = 100
"""Columns of a CSV header, whose length is limited to ``LONG_LINE``; far more than the fields."""

# JSON number (RFC 8259, section 6): Python's float() would accept "1_000", " 5" and "nan".
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_NOT_CSV = MalformedRequest("The line is not valid CSV (RFC 4180).")
_NOT_UTF_8 = MalformedRequest("The line is not UTF-8.")
_HEADER_TOO_LONG = InvalidRequest(
    f"A header may have at most {MAX_COLUMNS} columns and {LONG_LINE:,} characters."
)

_KNOWN = WRITABLE | READ_ONLY
_TEXTS = {"name", "description"}

# The csv module's own limit would end a cell in the middle and continue after it; here, the length
# of whole lines is limited instead.
csv.field_size_limit(2**31 - 1)

# A record up to its last "\n", as csv.reader takes it when fed line by line: cells separated by
# commas, and after the last one the rest of that line, which csv.reader rejects if it is more than
# "\r". Does not match while a quoted cell is open at the end of the text.
_CELL = r'(?>"[^"]*+(?:""[^"]*+)*+"|[^",\r\n][^,\r\n]*+|(?!"))'
_RECORD = re.compile(rf"{_CELL}(?:,{_CELL})*+(?!,)[^\n]*+\n")
_RECORDS = re.compile(rf"(?:\r*+\n){{1,{BLANK_LINES}}}+|{_RECORD.pattern}|(?s:.++)")
"""Matches the records of a text, consecutive blank lines as one, and last an incomplete record."""


class CsvReader:
    """Reader of CSV records after a header; a record may have line breaks in quoted cells.

    A byte order mark before the header, as written by spreadsheets, is skipped.
    """

    def __init__(self) -> None:
        self._columns: _Columns | None = None
        self.line = 0
        # Number of complete lines before ``_rest``, which is an incomplete record.
        self._line = 0
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._enough = len(_BYTE_ORDER_MARK)
        self._has_begun = False
        self._too_long: _TooLong | None = None

    def read(self, piece: bytes, *, is_last: bool = False) -> Iterator[Found]:
        """Yield the records that the piece completes, without the header; see ``Reader.read``."""
        self._rest.append(piece)
        self._rest_size += len(piece)
        # An incomplete record is scanned again only when its size has doubled, so that a record in
        # many small pieces takes linear time.
        if self._rest_size < self._enough and not is_last:
            return
        data = b"".join(self._rest)
        self._keep(b"")
        if not self._has_begun:
            self._has_begun = True
            data = data.removeprefix(_BYTE_ORDER_MARK)
        if self._too_long is not None:
            rest = self._too_long.read(data)
            if rest is None and not is_last:
                return
            began = self._line + 1
            self._line += self._too_long.lines
            self.line = self._line
            yield self._refused(began, LINE_TOO_LONG)
            self._too_long, data = None, rest or b""
        yield from self._read_records(data, is_last=is_last)
        if self._rest_size > MAX_LINE_BYTES:
            self._too_long = _TooLong(b"".join(self._rest))
            self._keep(b"")
        if is_last and self._columns is None:
            self._refused(1, InvalidRequest("There is no header."))

    def _keep(self, rest: bytes) -> None:
        self._rest, self._rest_size = [rest], len(rest)
        self._enough = min(2 * len(rest), MAX_LINE_BYTES + 1)

    def _read_records(self, data: bytes, *, is_last: bool) -> Iterator[Found]:
        """Read the complete records in the data, and keep the rest."""
        end = len(data) if is_last else data.rfind(b"\n") + 1
        text, is_damaged = _decoded(data[:end])
        records = _RECORDS.findall(text)
        rest = data[end:]
        if records and not is_last and not _RECORD.fullmatch(records[-1]):
            rest = _encoded(records.pop()) + rest
        # Long records are parsed separately.
        short = [record if len(record) <= LONG_LINE else "\n" for record in records]
        reader = csv.reader(short, strict=True)
        for record in records:
            line = self._line + 1
            self._line += record.count("\n")
            self.line = self._line if record.endswith("\n") else self._line + 1
            try:
                cells = next(reader)
            except csv.Error:
                yield self._refused(line, _NOT_CSV)
                continue
            if len(record) > LONG_LINE:
                if self._columns is None:
                    self._refused(line, _HEADER_TOO_LONG)
                yield partial(self._parsed_long, record, line, is_damaged=is_damaged)
            elif is_damaged and not _is_unicode(cells):
                yield self._refused(line, _NOT_UTF_8)
            elif not cells:
                yield None
            elif self._columns is None:
                self._columns = _Columns(cells, line)
            else:
                yield self._columns.parse(cells, line)
        self._keep(rest)

    def _parsed_long(self, record: str, line: int, *, is_damaged: bool) -> Parsed | None:
        if len(record) > MAX_LINE_BYTES or len(_encoded(record)) > MAX_LINE_BYTES:
            return self._refused(line, LINE_TOO_LONG)
        try:
            cells = next(csv.reader([record], strict=True))
        except csv.Error:
            return self._refused(line, _NOT_CSV)
        if is_damaged and not _is_unicode(cells):
            return self._refused(line, _NOT_UTF_8)
        assert self._columns is not None  # noqa: S101 (a long line is never a header; for mypy)
        return self._columns.parse(cells, line) if cells else None

    def _refused(self, line: int, error: CatalogError) -> list[LineFault]:
        """Return the faults of a line, or raise them if there is no header yet."""
        faults = faults_of(line, error)
        if self._columns is None:
            raise _header_refused(faults)
        return faults


# From outside quoted cells to the first line break outside of them.
_TO_END = re.compile(rb'(?:[^"\n]*+"[^"]*+")*+[^"\n]*+\n')


class _TooLong:
    """Record that is too long; keeps only the state for finding its end.

    It ends after the first line at which the number of its double quotes is even.

    Args:
        start: the part of the record read so far.
    """

    def __init__(self, start: bytes) -> None:
        self.lines = start.count(b"\n")
        self._is_quoted = start.count(b'"') % 2 == 1

    def read(self, data: bytes) -> bytes | None:
        """Return the data after the record; None while the record continues."""
        # Begin after the quote that closes the cell, if one is open.
        start = data.find(b'"') + 1 if self._is_quoted else 0
        found = _TO_END.match(data, start) if start or not self._is_quoted else None
        if found is None:
            self.lines += data.count(b"\n")
            self._is_quoted ^= data.count(b'"') % 2 == 1
            return None
        self.lines += data.count(b"\n", 0, found.end())
        return data[found.end() :]


def _decoded(data: bytes) -> tuple[str, bool]:
    """Decode UTF-8; also return whether invalid bytes were replaced with surrogate escapes."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return data.decode(errors="surrogateescape"), True


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _is_unicode(cells: Sequence[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


class _Columns:
    """Positions of the columns.

    Args:
        header: the column names.
        line: the number of the header's line.

    Raises:
        LinesInvalid: there are too many columns, one is unknown or duplicated, or a required one is
            missing.
    """

    def __init__(self, header: Sequence[str], line: int) -> None:
        if len(header) > MAX_COLUMNS:
            raise _header_refused(faults_of(line, _HEADER_TOO_LONG))
        faults = [
            LineFault(line, InvalidRequest.slug, message, json_pointer([name])[:200])
            for message, names in (
                ("This column is unknown.", [n for n in header if n not in _KNOWN]),
                ("This column is duplicated.", sorted({n for n in header if header.count(n) > 1})),
                ("This column is missing.", [n for n in ("name", "price") if n not in header]),
            )
            for name in names
        ]
        if faults:
            raise _header_refused(faults[:MAX_FIELD_ERRORS])
        self._count = len(header)
        self._name, self._price = header.index("name"), header.index("price")
        self._description = header.index("description") if "description" in header else None

    def parse(self, cells: Sequence[str], line: int) -> Parsed:
        """Parse a record under this header."""
        if len(cells) != self._count:
            return faults_of(line, MalformedRequest(f"The line must have {self._count} cells."))
        name, cell = unguarded(cells[self._name]), cells[self._price]
        description = None
        if self._description is not None and (described := cells[self._description]):
            description = unguarded(described)
        price = float(cell) if _NUMBER.fullmatch(cell) else cell
        draft = validate_fast(name, description, price)
        if draft is not None:
            return draft
        members = {"name": name, "description": description}
        return validate({**members, "price": price} if cell else members, line)


def _header_refused(faults: Sequence[LineFault]) -> LinesInvalid:
    detail = "The header must name the columns name, price and description, separated by commas."
    return LinesInvalid(detail, members={"created": 0, "failed": 0, "errors": rendered(faults)})


class CsvWriter:
    """Writer of CSV records after a header, each ending with CRLF; null is an empty cell.

    Args:
        fields: the fields of a product to write, in this order.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = fields
        self._texts = [index for index, field in enumerate(fields) if field in _TEXTS]

    def head(self) -> bytes:
        """Return the text before the first product."""
        return _records([self._fields])

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


CSV = Format("csv", "text/csv", CsvReader, CsvWriter)
