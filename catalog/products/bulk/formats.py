"""Bulk formats: newline-delimited JSON and CSV (RFC 4180), readers and writers.

Both are read and written in pieces of any size, and buffer no more than one line may have.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import StringIO
from typing import Any, NamedTuple, Protocol

import orjson
from pydantic import ValidationError

from catalog.errors import (
    BodyTooLarge,
    CatalogError,
    InvalidRequest,
    LinesInvalid,
    MalformedRequest,
)
from catalog.http.problems import MAX_FIELD_ERRORS, field_errors, json_pointer
from catalog.http.strict_json import parse_json
from catalog.products.models import MAX_DESCRIPTION, MAX_NAME, MAX_PRICE
from catalog.products.schemas import ProductCreate, ProductRead

MAX_LINE_BYTES = 256 * 1024
"""Maximum size of a line; the longest product fits even with every character escaped."""

LONG_LINE = 8 * 1024
"""Bytes or characters beyond which a line is parsed in a thread: a malicious line of
``MAX_LINE_BYTES`` takes 0.2 s."""

MAX_COLUMNS = 100
"""Columns of a CSV header, whose length is limited to ``LONG_LINE``; a product has eight fields."""

_BLANK_LINES = 1000
"""Consecutive blank lines skipped in one step."""

WRITABLE = frozenset(ProductCreate.model_fields)
READ_ONLY = frozenset(ProductRead.model_fields) - WRITABLE
"""Further fields of an export, which an import ignores."""


class ParsedProduct(NamedTuple):
    """Valid product parsed from a line, without an owner."""

    name: str
    description: str | None
    price: float


class LineFault(NamedTuple):
    """Fault of a line.

    Attributes:
        line: its number, from 1; for a record of several lines, the first one's.
        code: the slug of the error that a single create would get.
        message: a human-readable sentence.
        pointer: a JSON pointer (RFC 6901) to the field, if the fault concerns one.
    """

    line: int
    code: str
    message: str
    pointer: str | None = None


def rendered(faults: Iterable[LineFault]) -> list[dict[str, Any]]:
    """Return the JSON members of faults."""
    return [
        {name: value for name, value in fault._asdict().items() if value is not None}
        for fault in faults
    ]


Parsed = ParsedProduct | list[LineFault]
"""Result of parsing a line: a product or its faults."""

Found = Parsed | None | Callable[[], Parsed | None]
"""Next line of a text: its result, or None if it is skipped; or a function that parses it, too slow
for the event loop."""


class Reader(Protocol):
    """Incremental reader of one text.

    Attributes:
        line: the number of the last line of the record that was yielded last.
    """

    line: int

    def read(self, piece: bytes, *, is_last: bool = False) -> Iterator[Found]:
        """Yield the lines that the piece completes.

        Each step takes a few milliseconds at most if pieces have no more than about 64 KiB, so that
        the caller can yield to the event loop between steps. The total work is linear in the size
        of the text, however it is split into pieces.

        Raises:
            LinesInvalid: the text is unreadable as a whole.
        """


class RowWriter(Protocol):
    """Incremental writer of one text."""

    def head(self) -> bytes:
        """Return the text before the first product."""

    def write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """Encode products, given as rows with the values of the requested fields."""


class Format(NamedTuple):
    """Text format for products.

    Attributes:
        name: its common name, also used as the file extension.
        media_type: its media type.
        reader: creates a reader of one text.
        writer: creates a writer of one text with the given fields.
    """

    name: str
    media_type: str
    reader: Callable[[], Reader]
    writer: Callable[[Sequence[str]], RowWriter]


# Fast validation in an eighth of the schema's time. It may reject valid products, which are then
# validated by the schema, as are invalid ones for their error messages. Whatever it accepts, the
# schema would accept with the same result.
def _draft(name: object, description: object, price: object) -> ParsedProduct | None:
    if type(price) is int:
        price = float(price) if 0 <= price <= MAX_PRICE else None
    if (
        type(price) is float
        and 0 <= price <= MAX_PRICE
        and type(name) is str
        and len(name) <= MAX_NAME
        and "\0" not in name
        and name.strip()
        and (
            description is None
            or (
                type(description) is str
                and len(description) <= MAX_DESCRIPTION
                and "\0" not in description
            )
        )
    ):
        # Adding 0.0 turns -0.0 into 0.0.
        return ParsedProduct(name, description, price + 0.0)
    return None


def _validated(members: Any, line: int) -> Parsed:
    """Validate the members of a line by the schema; return the product or the faults."""
    if isinstance(members, dict):
        members = {name: value for name, value in members.items() if name not in READ_ONLY}
        if len(members) > MAX_FIELD_ERRORS:
            # The schema would report all unknown members before the first few are selected.
            unknown = [name for name in members if name not in WRITABLE]
            for name in unknown[MAX_FIELD_ERRORS:]:
                del members[name]
    try:
        product = ProductCreate.model_validate(members)
    except ValidationError as error:
        return [
            LineFault(line, InvalidRequest.slug, fault.message, fault.name)
            for fault in field_errors(error)
        ]
    return ParsedProduct(product.name, product.description, product.price)


def _faults(line: int, error: CatalogError) -> list[LineFault]:
    return [LineFault(line, error.slug, error.detail)]


_LINE_TOO_LONG = BodyTooLarge(f"A line may have at most {MAX_LINE_BYTES} bytes.")


class NdjsonReader:
    """Reader of one JSON object per line, as strict as for a request body; skips empty lines."""

    def __init__(self) -> None:
        self.line = 0
        # The received pieces of an incomplete line.
        self._rest: list[bytes] = []
        self._rest_size = 0
        # Inside a line that is too long, and is discarded up to its end.
        self._skips = False

    def read(self, piece: bytes, *, is_last: bool = False) -> Iterator[Found]:
        """Yield the lines that the piece completes; see ``Reader.read``."""
        lines = piece.split(b"\n")
        rest = [] if is_last else [lines.pop()]
        if lines:
            # Only the new piece is searched, so that many small ones cost no more than a large one.
            lines[0] = b"".join([*self._rest, lines[0]])
            self._rest, self._rest_size = [], 0
        for line in lines:
            self.line += 1
            if self._skips or len(line) > MAX_LINE_BYTES:
                self._skips = False
                yield _faults(self.line, _LINE_TOO_LONG)
            elif not line or line.isspace():
                if self.line % _BLANK_LINES == 0:
                    yield None
            elif len(line) > LONG_LINE:
                yield partial(_parsed_line, line, self.line)
            else:
                yield _parsed_line(line, self.line)
        if not self._skips:
            self._rest += rest
            self._rest_size += sum(map(len, rest))
        if self._rest_size > MAX_LINE_BYTES:
            self._skips, self._rest, self._rest_size = True, [], 0


def _parsed_line(line: bytes, number: int) -> Parsed:
    draft = _draft_of_line(line)
    if draft is not None:
        return draft
    try:
        members = parse_json(line)
    except MalformedRequest as error:
        # The message is about a body, of which this would be the first and only line.
        detail = error.detail.replace("The body", "The line").replace(" line 1,", "")
        return _faults(number, MalformedRequest(detail))
    return _validated(members, number)


def _draft_of_line(line: bytes) -> ParsedProduct | None:
    """Parse a plain line fast; None if it needs the strict parser or the schema, valid or not."""
    try:
        members = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if type(members) is not dict:
        return None
    draft = _draft(members.get("name"), members.get("description"), members.get("price"))
    if draft is None:
        return None
    # Detect duplicate names, which the parser accepts silently, by counting double quotes: every
    # name and every string has two, plus one for each double quote that it contains. A duplicate
    # adds more; a double quote spelled \u0022 would compensate for that, so it is not plain.
    quotes = 2 * len(members) + 2 + draft.name.count('"')
    unread = len(members) - 2
    if "description" in members:
        unread -= 1
        if draft.description is not None:
            quotes += 2 + draft.description.count('"')
    if unread:
        for field in READ_ONLY:
            value = members.get(field)
            if type(value) is str:
                quotes += 2 + value.count('"')
                unread -= 1
            elif type(value) is int:
                unread -= 1
    if unread or line.count(b'"') != quotes or b"\\u0022" in line:
        return None
    return draft


class NdjsonWriter:
    """Writer of one JSON object per line.

    Args:
        fields: the fields of a product to write, in this order.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = fields
        # This sequence cannot occur inside a string: a double quote within it follows a backslash,
        # and its closing quote precedes a comma or a bracket.
        self._between = b'},{"' + fields[0].encode() + b'":'
        self._newline_between = self._between.replace(b",", b"\n", 1)

    def head(self) -> bytes:
        """Return the text before the first product."""
        return b""

    def write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """Encode rows; see ``RowWriter.write``."""
        fields = self._fields
        # Encoding all at once and splitting takes a third of the time of encoding one by one.
        products = orjson.dumps([dict(zip(fields, row)) for row in rows])  # noqa: B905 (faster)
        lines = products[1:-1].replace(self._between, self._newline_between)
        return lines + b"\n" if lines else b""


# Prefixes by which a spreadsheet takes a cell for a formula (OWASP, "CSV Injection"), ASCII and
# full width, after any number of apostrophes; or apostrophes alone, so that an empty text differs
# from null.
_GUARDED = re.compile("'*(?:[=+\\-@\t\r\n＝＋－＠]|\\Z)")  # noqa: RUF001 (full width is the point)
_MAY_BE_GUARDED = frozenset("'=+-@\t\r\n＝＋－＠")  # noqa: RUF001 (the same)

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


def guarded(text: str) -> str:
    """Encode a text as a cell, with an apostrophe before what a spreadsheet would run.

    A text that already looks guarded is guarded again, so that ``unguarded`` restores every text.
    """
    if text and text[0] not in _MAY_BE_GUARDED:
        return text
    return f"'{text}" if _GUARDED.match(text) else text


def unguarded(cell: str) -> str:
    """Decode the text of a cell: remove the apostrophe that ``guarded`` adds."""
    return cell[1:] if cell[:1] == "'" and _GUARDED.match(cell, 1) else cell


# A record up to its last "\n", as csv.reader takes it when fed line by line: cells separated by
# commas, and after the last one the rest of that line, which csv.reader rejects if it is more than
# "\r". Does not match while a quoted cell is open at the end of the text.
_CELL = r'(?>"[^"]*+(?:""[^"]*+)*+"|[^",\r\n][^,\r\n]*+|(?!"))'
_RECORD = re.compile(rf"{_CELL}(?:,{_CELL})*+(?!,)[^\n]*+\n")
_RECORDS = re.compile(rf"(?:\r*+\n){{1,{_BLANK_LINES}}}+|{_RECORD.pattern}|(?s:.++)")
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
            yield self._refused(began, _LINE_TOO_LONG)
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
            return self._refused(line, _LINE_TOO_LONG)
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
        faults = _faults(line, error)
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
            raise _header_refused(_faults(line, _HEADER_TOO_LONG))
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
            return _faults(line, MalformedRequest(f"The line must have {self._count} cells."))
        name, cell = unguarded(cells[self._name]), cells[self._price]
        description = None
        if self._description is not None and (described := cells[self._description]):
            description = unguarded(described)
        price = float(cell) if _NUMBER.fullmatch(cell) else cell
        draft = _draft(name, description, price)
        if draft is not None:
            return draft
        members = {"name": name, "description": description}
        return _validated({**members, "price": price} if cell else members, line)


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


NDJSON = Format("ndjson", "application/x-ndjson", NdjsonReader, NdjsonWriter)
CSV = Format("csv", "text/csv", CsvReader, CsvWriter)

FORMATS: Mapping[str, Format] = {each.media_type: each for each in (NDJSON, CSV)}
"""Formats by media type."""
