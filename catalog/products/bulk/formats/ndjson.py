"""Newline-delimited JSON: one product a line."""

import codecs
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import orjson

from catalog.errors import MalformedRequest
from catalog.http.strict_json import parse_json
from catalog.products.bulk.formats.format import Format, ReaderOptions, WriterOptions
from catalog.products.bulk.formats.lines import (
    BLANK_LINES,
    LINE_TOO_LONG,
    LINES_AT_ONCE,
    LONG_LINE,
    MAX_LINE_BYTES,
    READ_ONLY,
    WRITABLE,
    Found,
    Parsed,
    ParsedProduct,
    faults_of,
    validate,
    validate_columns,
    validate_fast,
    validate_upsert,
)

_FIELDS = ParsedProduct._fields

_PLAIN_BYTES = 128 * 1024
"""Maximum size of lines that are parsed at once."""

# NUL, which texts may not have; and the double quote, where it is not counted as one.
_NOT_PLAIN = (b"\\u0000", b"\\u0022")


class NdjsonReader:
    """Reader of one JSON object per line, as strict as for a request body; skips empty lines.

    A byte order mark is skipped, too.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self._parse = _parse_upsert if options.upsert else _parse_line
        self._may_be_plain = not options.upsert
        self.line = self.first_line = 0
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
            if self.line == 0:
                lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
        for start in range(0, len(lines), LINES_AT_ONCE):
            some = lines[start : start + LINES_AT_ONCE]
            plain = _plain_products(some) if self._may_be_plain and not self._skips else None
            if plain is None:
                yield from self._read_each(some)
                continue
            for product in plain:
                self.line += 1
                self.first_line = self.line
                yield product
        if not self._skips:
            self._rest += rest
            self._rest_size += sum(map(len, rest))
        if self._rest_size > MAX_LINE_BYTES:
            self._skips, self._rest, self._rest_size = True, [], 0

    def _read_each(self, lines: list[bytes]) -> Iterator[Found]:
        for line in lines:
            self.line += 1
            self.first_line = self.line
            if self._skips or len(line) > MAX_LINE_BYTES:
                self._skips = False
                yield faults_of(self.line, LINE_TOO_LONG)
            elif not line or line.isspace():
                if self.line % BLANK_LINES == 0:
                    yield None
            elif len(line) > LONG_LINE:
                yield partial(self._parse, line, self.line)
            else:
                yield self._parse(line, self.line)


def _parse_line(line: bytes, number: int) -> Parsed:
    product = _plain_product(line)
    if product is not None:
        return product
    return _parse_strictly(line, number, validate)


def _parse_upsert(line: bytes, number: int) -> Parsed:
    return _parse_strictly(line, number, validate_upsert)


def _parse_strictly(line: bytes, number: int, validated: Callable[[Any, int], Parsed]) -> Parsed:
    try:
        members = parse_json(line)
    except MalformedRequest as error:
        # The message is about a body, of which this would be the first and only line.
        detail = error.detail.replace("The body", "The line").replace(" line 1,", "")
        return faults_of(number, MalformedRequest(detail))
    return validated(members, number)


def _plain_products(lines: Sequence[bytes]) -> list[ParsedProduct] | None:
    """Parse plain lines at once; None if one of them is not plain, or has no valid product.

    Equal to ``_plain_product`` of each. An object that begins with its line and has no other brace
    ends with it too: all lines have one brace of each kind, so if there are as many objects as
    lines, none is nested or extends over two of them.
    """
    text = b"\n".join(lines)
    count = len(lines)
    if (
        len(text) > _PLAIN_BYTES
        or not (text.startswith(b"{") and text.endswith(b"}"))
        or text.count(b"}\n{") != count - 1
        or not text.count(b"{") == text.count(b"}") == count
        or any(escape in text for escape in _NOT_PLAIN)
    ):
        return None
    try:
        members: list[Any] = orjson.loads(b"[%b]" % text.replace(b"\n", b","))
    except orjson.JSONDecodeError:
        return None
    columns = [[each.get(field) for each in members] for field in _FIELDS]
    products = validate_columns(*columns) if len(members) == count else None
    if products is None:
        return None
    fields = set().union(*set(map(tuple, members)))
    for field in fields - WRITABLE:
        columns.append([each.get(field, 0) for each in members])
        if field not in READ_ONLY or not set(map(type, columns[-1])) <= {str, int}:
            return None
    # As for a single line; a line without a duplicate has no more quotes than it must, so that the
    # sum is right only if all lines are.
    has_quotes = b'\\"' in text
    quotes = 2 * sum(map(len, members))
    for column in columns:
        for value in column:
            if type(value) is str:
                quotes += 2 + value.count('"') if has_quotes else 2
    return products if text.count(b'"') == quotes else None


def _plain_product(line: bytes) -> ParsedProduct | None:
    """Parse a plain line fast; None if it needs the strict parser or the schema, valid or not."""
    try:
        members = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if type(members) is not dict:
        return None
    product = validate_fast(*map(members.get, _FIELDS))
    if product is None:
        return None
    # Detect duplicate names, which the parser accepts silently, by counting double quotes: every
    # name and every string has two, plus one for each double quote that it contains. A duplicate
    # adds more; a double quote spelled \u0022 would compensate for that, so it is not plain.
    quotes = 2 * len(members) + 2 + product.name.count('"')
    unread = len(members) - 2
    if "description" in members:
        unread -= 1
        if product.description is not None:
            quotes += 2 + product.description.count('"')
    if "key" in members:
        unread -= 1
        if product.key is not None:
            quotes += 2 + product.key.count('"')
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
    return product


class NdjsonWriter:
    """Writer of one JSON object per line.

    Args:
        fields: the fields of a product to write, in this order.
    """

    def __init__(self, fields: Sequence[str], _: WriterOptions) -> None:
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


NDJSON = Format(
    *("ndjson", "application/x-ndjson", NdjsonReader, NdjsonWriter),
    # JSON is UTF-8 (RFC 8259, section 8.1), of which ASCII is a part.
    charsets=dict.fromkeys(("utf-8", "utf8", "us-ascii"), "utf-8"),
)
