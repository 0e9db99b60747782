"""CSV (RFC 4180), as spreadsheets and programs write it: records under a header."""

import csv
import re
from collections.abc import Iterator
from functools import cache, partial
from itertools import islice
from typing import NamedTuple

from catalog.errors import BodyTooLarge, CatalogError, InvalidRequest, MalformedRequest
from catalog.products.bulk.formats.csv_header import (
    HEADER_TOO_LONG,
    OPEN_QUOTE,
    SEPARATORS,
    Columns,
    declared_separator,
    refused,
    refused_before_header,
    separator_of,
)
from catalog.products.bulk.formats.csv_writer import CsvWriter
from catalog.products.bulk.formats.encodings import CHARSETS, CHECKED_BYTES, TextDecoder
from catalog.products.bulk.formats.format import Format, ReaderOptions
from catalog.products.bulk.formats.lines import (
    BLANK_LINES,
    LINES_AT_ONCE,
    LONG_LINE,
    MAX_LINE_BYTES,
    Found,
    Parsed,
    ParsedProduct,
    UnreadLines,
    faults_of,
)
from catalog.products.bulk.formats.unread_lines import LineCounter, OverlongRecord, unread

MAX_RECORD = MAX_LINE_BYTES
"""Maximum number of characters of a record."""

_COUNTED = 64 * 1024
"""Characters of an overlong record whose lines are counted in one step."""

_RECORD_TOO_LONG = BodyTooLarge(
    f"A record may have at most {MAX_RECORD:,} characters; is a double quote not closed?"
)
_NOT_CSV = MalformedRequest("The line is not valid CSV (RFC 4180).")
_NUL = MalformedRequest("The header contains NUL. Is it UTF-16? Name it: charset=utf-16le.")
_BLANK_LINES = re.compile(rf"(?:[{SEPARATORS} \r]*+\n)*+")
_NO_HEADER = InvalidRequest("There is no header.")

# The csv module's own limit would end a cell in the middle and continue after it; here, the length
# of whole records is limited instead.
csv.field_size_limit(2**31 - 1)


class _Patterns(NamedTuple):
    """Patterns of the records of a text.

    Attributes:
        record: a record up to its last line break, as csv.reader takes it when fed line by line:
            cells between separators, and after the last one the rest of that line, which csv.reader
            rejects if it is more than a carriage return. Does not match while a quoted cell is open
            at the end of the text.
        records: the records of a text, consecutive blank lines as one, and last an incomplete one.
    """

    record: re.Pattern[str]
    records: re.Pattern[str]


@cache
def _patterns(separator: str) -> _Patterns:
    mark = re.escape(separator)
    cell = rf'(?>"[^"]*+(?:""[^"]*+)*+"|[^"{mark}\r\n][^{mark}\r\n]*+|(?!"))'
    record = rf"{cell}(?:{mark}{cell})*+(?!{mark})[^\n]*+\n"
    records = rf"(?:\r*+\n){{1,{BLANK_LINES}}}+|{record}|(?s:.++)"
    return _Patterns(re.compile(record), re.compile(records))


class CsvReader:
    """Reader of CSV records after a header; a record may have line breaks in quoted cells.

    Args:
        options: the charset of the text, and whether its cells are guarded.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self._decoder = TextDecoder(options.codec)
        self._options = options
        self._separator: str | None = None
        self._columns: Columns | None = None
        self.line = self.first_line = 0
        # Number of complete lines before ``_rest``, which is an incomplete record.
        self._line = 0
        self._rest: list[str] = []
        self._rest_size = 0
        self._enough = 0
        self._too_long: OverlongRecord | None = None
        # Counts the lines after the first byte that is not in the encoding.
        self._undecoded: LineCounter | None = None

    def read(self, piece: bytes, *, is_last: bool = False) -> Iterator[Found]:
        """Yield the records that the piece completes, without the header; see ``Reader.read``."""
        text, undecoded = self._decoder.decode(piece, is_last=is_last)
        if self._decoder.invalid_at is not None:
            yield from self._stop(text, undecoded, is_last=is_last)
            return
        self._rest.append(text)
        self._rest_size += len(text)
        # An incomplete record is scanned again only when its size has doubled, so that a record in
        # many small pieces takes linear time.
        if self._rest_size < self._enough and not is_last:
            return
        yield from self._read_text("".join(self._rest), is_last=is_last)
        if is_last and self._columns is None:
            raise refused_before_header(1, _NO_HEADER)

    def _read_text(self, text: str, *, is_last: bool) -> Iterator[Found]:
        self._keep("")
        if self._too_long is not None:
            rest = self._too_long.read(text)
            if rest is None and not is_last:
                return
            yield self._passed(self._too_long.counter, _RECORD_TOO_LONG)
            self._too_long, text = None, rest or ""
        if self._separator is None:
            text = self._find_separator(text, is_last=is_last)
        if self._separator is not None:
            yield from self._read_records(text, self._separator, is_last=is_last)
        if self._rest_size > MAX_RECORD:
            if self._columns is None:
                raise refused_before_header(self._line + 1, HEADER_TOO_LONG)
            text = "".join(self._rest)
            self._too_long = OverlongRecord()
            self._keep("")
            for start in range(0, len(text), _COUNTED):
                self._too_long.begin(text[start : start + _COUNTED])
                yield None

    def _keep(self, rest: str) -> None:
        self._rest, self._rest_size = [rest], len(rest)
        self._enough = min(2 * len(rest), MAX_RECORD + 1)

    def _find_separator(self, text: str, *, is_last: bool) -> str:
        """Find the separator in the first line with a cell; return the text from there on."""
        blank = _BLANK_LINES.match(text)
        start = blank.end() if blank else 0
        self._line += text.count("\n", 0, start)
        end = text.find("\n", start) + 1
        line = text[start : end or len(text)]
        if len(line) > LONG_LINE:
            raise refused_before_header(self._line + 1, HEADER_TOO_LONG)
        if "\0" in line:
            raise refused_before_header(self._line + 1, _NUL)
        if not end and not is_last:
            self._keep(text[start:])
            return ""
        if not line.strip(SEPARATORS + " \r"):
            return ""
        self._separator = declared_separator(line)
        if self._separator is not None:
            self._line += 1
            return text[end or len(text) :]
        self._separator = separator_of(line)
        return text[start:]

    def _read_records(self, text: str, separator: str, *, is_last: bool) -> Iterator[Found]:
        """Read the complete records in the text, and keep the rest."""
        end = len(text) if is_last else text.rfind("\n") + 1
        self._keep(text[end:])
        patterns = _patterns(separator)
        # Searched in portions: all of the shortest records of a piece would take 20 ms.
        found = patterns.records.finditer(text, 0, end)
        while matches := list(islice(found, LINES_AT_ONCE)):
            records = [match[0] for match in matches]
            is_at_end = matches[-1].end() == end and not is_last
            if is_at_end and not patterns.record.fullmatch(records[-1]):
                self._keep(records.pop() + text[end:])
            plain = self._plain_products(records, separator)
            if plain is None:
                yield from self._read_each(records, separator)
                continue
            for record, product in zip(records, plain, strict=True):
                self._begin(record)
                yield product

    def _read_each(self, records: list[str], separator: str) -> Iterator[Found]:
        # Long records are parsed separately.
        short = [record if len(record) <= LONG_LINE else "\n" for record in records]
        reader = csv.reader(short, delimiter=separator, strict=True)
        for record in records:
            line = self._begin(record)
            try:
                cells = next(reader)
            except csv.Error:
                yield self._unread(record, line, _NOT_CSV)
                continue
            if len(record) > LONG_LINE:
                if self._columns is None:
                    raise refused_before_header(line, HEADER_TOO_LONG)
                yield partial(self._parse_long, record, line, separator)
            elif not cells:
                yield None
            elif self._columns is not None:
                yield self._parse(self._columns, cells, record, line)
            elif any(cells):
                self._columns = Columns(cells, line, separator=separator, options=self._options)
            else:
                yield None

    def _begin(self, record: str) -> int:
        """Count the lines of the next record; return the number of its first."""
        line = self._line + 1
        self._line += record.count("\n")
        self.first_line = line
        self.line = self._line if record.endswith("\n") else self._line + 1
        return line

    def _plain_products(self, records: list[str], separator: str) -> list[ParsedProduct] | None:
        """Parse records at once; None if one of them is long, or has no valid product."""
        if self._columns is None or not records or max(map(len, records)) > LONG_LINE:
            return None
        try:
            rows = list(csv.reader(records, delimiter=separator, strict=True))
        except csv.Error:
            return None
        return self._columns.parse_all(rows) if len(rows) == len(records) else None

    def _parse(self, columns: Columns, cells: list[str], record: str, line: int) -> Parsed | None:
        parsed = columns.parse(cells, line)
        # A line break inside of a record is before its last character.
        if isinstance(parsed, list) and "\n" in record[:-1] and columns.swallows_lines(cells):
            return self._unread(record, line, OPEN_QUOTE)
        return parsed

    def _parse_long(self, record: str, line: int, separator: str) -> Parsed | None:
        if len(record) > MAX_RECORD:
            return self._unread(record, line, _RECORD_TOO_LONG)
        try:
            cells = next(csv.reader([record], delimiter=separator, strict=True))
        except csv.Error:
            return self._unread(record, line, _NOT_CSV)
        assert self._columns is not None  # noqa: S101 (a long line is never a header; for mypy)
        return self._parse(self._columns, cells, record, line) if cells else None

    def _unread(self, record: str, line: int, error: CatalogError) -> UnreadLines:
        """Return the fault of a record's lines, or raise it if there is no header yet."""
        if self._columns is None:
            raise refused_before_header(line, error)
        counter = LineCounter()
        counter.count(record)
        return unread(line, counter, error)

    def _passed(self, counter: LineCounter, error: CatalogError) -> UnreadLines:
        """Return the fault of the next lines, which were counted instead of read."""
        found = unread(self._line + 1, counter, error)
        self._line += counter.breaks
        self.line = found.fault.last_line or found.fault.line
        return found

    def _stop(self, text: str, undecoded: str, *, is_last: bool) -> Iterator[Found]:
        """Read up to the first byte that is not in the encoding, and only count the lines after it.

        Raises:
            LinesInvalid: the byte is among the first ones, before anything is written.
        """
        if self._undecoded is None:
            before = "".join(self._rest) + text
            error = self._not_decoded(self._decoder.invalid_at or 0)
            if (self._decoder.invalid_at or 0) < CHECKED_BYTES or self._columns is None:
                line = self._line + 1 + before.count("\n")
                counted = self._too_long.counter.breaks if self._too_long else 0
                detail = f"The text is not in the encoding {self._decoder.codec}."
                raise refused(detail, faults_of(line + counted, error))
            yield from self._read_text(before, is_last=False)
            self._undecoded = self._too_long.counter if self._too_long else LineCounter()
            self._undecoded.count("".join(self._rest))
            self._keep("")
        self._undecoded.count(undecoded)
        if is_last:
            yield self._passed(self._undecoded, self._not_decoded(self._decoder.invalid_at or 0))

    def _not_decoded(self, at: int) -> MalformedRequest:
        return MalformedRequest(
            f"The byte at offset {at} is not in the encoding {self._decoder.codec}. If the text has"
            " another encoding, name it, for example by text/csv; charset=windows-1252."
        )


CSV = Format("csv", "text/csv", CsvReader, CsvWriter, charsets=CHARSETS)
