"""Header of a CSV text: its separator and its columns."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from catalog.errors import CatalogError, InvalidRequest, LinesInvalid, MalformedRequest
from catalog.http.replies.problems import MAX_FIELD_ERRORS, json_pointer
from catalog.products.bulk.formats.format import ReaderOptions
from catalog.products.bulk.formats.formula_guard import unguarded
from catalog.products.bulk.formats.lines import (
    LONG_LINE,
    READ_ONLY,
    UPSERT_ONLY,
    WRITABLE,
    LineFault,
    Parsed,
    ParsedProduct,
    faults_of,
    rendered,
    validate,
    validate_columns,
    validate_fast,
    validate_upsert,
)
from catalog.products.models import MAX_DESCRIPTION, MAX_KEY, MAX_NAME

MAX_COLUMNS = 100
"""Columns of a CSV header, whose length is limited to ``LONG_LINE``; far more than the fields."""

SEPARATORS = ",;\t"
"""Separators that are found by themselves; of equals, the first one wins."""

_DECLARED = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_DECLARABLE = SEPARATORS + "|"

HEADER_TOO_LONG = InvalidRequest(
    f"A header may have at most {MAX_COLUMNS} columns and {LONG_LINE:,} characters."
)
OPEN_QUOTE = MalformedRequest("A double quote is probably not closed.")

_REQUIRED = ("name", "price")
_FIELDS = ParsedProduct._fields
_LONGEST = {"name": MAX_NAME, "description": MAX_DESCRIPTION, "key": MAX_KEY}
_TEXTS = _LONGEST.keys()
# Python converts no more than 4,300 digits; ids have up to 19.
_DIGITS = 20
_KNOWN = WRITABLE | READ_ONLY
# JSON number (RFC 8259, section 6): Python's float() would accept "1_000" and "nan".
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBERS = re.compile(rf"(?:{_NUMBER.pattern}\n)++")
_BLANKS = " \t\xa0"
_UNNAMED = re.compile(r"(?:unnamed: [0-9]+)?")


def declared_separator(line: str) -> str | None:
    """Return the separator that a line such as ``sep=;`` declares, as Excel has it before a header.

    Raises:
        LinesInvalid: it is none that an import takes.
    """
    found = _DECLARED.fullmatch(line.rstrip("\r\n"))
    if found is None:
        return None
    if found[1] not in _DECLARABLE:
        raise header_refused(faults_of(1, InvalidRequest("This separator is not supported.")))
    return found[1]


def separator_of(header: str) -> str:
    """Return the separator by which a header has the most known columns, else the most columns."""

    def names(separator: str) -> list[str]:
        try:
            cells: list[str] = next(csv.reader([header], delimiter=separator), [])
        except csv.Error:
            return []
        return [_normalized(cell) for cell in cells]

    def rank(separator: str) -> tuple[int, int]:
        cells = names(separator)
        return sum(cell in _KNOWN for cell in cells), len(cells)

    return max(SEPARATORS, key=rank)


def _normalized(name: str) -> str:
    return name.strip().lower()


class Columns:
    """Positions of the columns.

    Names are compared without regard to case and blanks around them. Empty columns at the end are
    ignored, and so is a first column without a name, in which pandas writes the numbers of rows.

    Args:
        header: the column names.
        line: the number of the header's line.
        separator: the separator of the cells.
        options: whether texts may have an apostrophe that guards them, and lines change products.

    Raises:
        LinesInvalid: there are too many columns, one is unknown, unnamed or duplicated, or a
            required one is missing.
    """

    def __init__(
        self, header: Sequence[str], line: int, *, separator: str, options: ReaderOptions
    ) -> None:
        names = [_normalized(name) for name in header]
        while names and not names[-1]:
            names.pop()
        if len(names) > MAX_COLUMNS:
            raise header_refused(faults_of(line, HEADER_TOO_LONG))
        names_product = options.upsert and not {"id", "key"}.isdisjoint(names)
        required = () if names_product else _REQUIRED
        faults = list(_faults(line, header, names, required))
        if faults:
            raise header_refused(faults[:MAX_FIELD_ERRORS])
        self._count = len(names)
        read = (*_FIELDS, *UPSERT_ONLY) if options.upsert else _FIELDS
        self._places = {name: names.index(name) for name in read if name in names}
        self._is_upsert = options.upsert
        self._has_decimal_comma = separator != ","
        self._unguarded = unguarded if options.guard else str

    def parse_all(self, rows: Sequence[Sequence[str]]) -> list[ParsedProduct] | None:
        """Parse records at once; None if one has no valid product, or is not plain."""
        if self._is_upsert or set(map(len, rows)) != {self._count}:
            return None
        if any("\0" in cell for row in rows for cell in row):
            return None
        return validate_columns(*(self._column(name, rows) for name in _FIELDS))

    def _column(self, name: str, rows: Sequence[Sequence[str]]) -> Sequence[object]:
        """Return the values of a column, equal to ``_value`` of each cell."""
        place = self._places.get(name)
        if place is None:
            return [None] * len(rows)
        cells = [row[place] for row in rows]
        if name == "price":
            if not self._has_decimal_comma and _NUMBERS.fullmatch("\n".join([*cells, ""])):
                with suppress(ValueError):
                    return list(map(float, cells))
            return [self._value(name, cell) for cell in cells]
        # Few texts are guarded, and so begin with an apostrophe.
        texts = [self._unguarded(cell) if cell[:1] == "'" else cell for cell in cells]
        return (
            texts
            if name == "name"
            else [text if cell else None for text, cell in zip(texts, cells, strict=True)]
        )

    def parse(self, cells: list[str], line: int) -> Parsed | None:
        """Parse a record under this header; None if it is a row of separators."""
        if not any(cells):
            return None
        if len(cells) != self._count:
            while len(cells) > self._count and not cells[-1]:
                cells.pop()
            if len(cells) != self._count:
                detail = f"The line has {len(cells)} cells, and the header {self._count}."
                return faults_of(line, MalformedRequest(detail))
        members = {name: self._value(name, cells[place]) for name, place in self._places.items()}
        if self._is_upsert:
            return validate_upsert(members, line)
        product = validate_fast(*map(members.get, _FIELDS))
        if product is not None:
            return product
        if members["price"] == "":
            del members["price"]
        return validate(members, line)

    def _value(self, name: str, cell: str) -> object:
        """Return the value of a cell."""
        if name in _TEXTS:
            return self._unguarded(cell) if cell or name == "name" else None
        cell = cell.strip(_BLANKS)
        if name != "price":
            # pandas writes whole numbers as floats where others of the column are missing.
            cell = cell.removesuffix(".0")
            if self._has_decimal_comma:
                cell = cell.removesuffix(",0")
            is_number = cell.isascii() and cell.isdigit() and len(cell) < _DIGITS
            return int(cell) if is_number else cell or None
        number = cell.replace(",", ".", 1) if self._has_decimal_comma else cell
        return float(number) if _NUMBER.fullmatch(number) else cell

    def swallows_lines(self, cells: Sequence[str]) -> bool:
        """Tell whether an invalid record of several lines looks like several records.

        That is what becomes of them after a quote that is not closed.
        """
        if len(cells) != self._count:
            return True
        return any(
            "\n" in cells[place] and len(cells[place]) > _LONGEST.get(name, 0)
            for name, place in self._places.items()
        )


def _faults(
    line: int, header: Sequence[str], names: Sequence[str], required: Sequence[str]
) -> Iterator[LineFault]:
    """Yield the fault of each column.

    Args:
        line: the number of the header's line.
        header: the columns' names as they were sent.
        names: the same names, normalized and without the empty ones at the end.
        required: the columns that may not be missing.
    """

    def fault(name: str, message: str) -> LineFault:
        return LineFault(line, InvalidRequest.slug, message, json_pointer([name])[:200])

    for place, name in enumerate(names):
        if name in _KNOWN or (place == 0 and _UNNAMED.fullmatch(name)):
            continue
        sent = header[place]
        yield fault(
            sent,
            f"{sent[:200]} is not a known column." if name else f"Column {place + 1} has no name.",
        )
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        yield fault(name, f"{name[:200]} is there more than once.")
    for name in required:
        if name not in names:
            yield fault(name, f"{name} is missing.")


def header_refused(faults: Sequence[LineFault]) -> LinesInvalid:
    """Return the refusal of a text whose header has faults."""
    detail = (
        "The header must name the columns name and price, or id or key for an upsert, and may name "
        "others of a product, separated by commas, semicolons or tabs."
    )
    return refused(detail, faults)


def refused(detail: str, faults: Sequence[LineFault]) -> LinesInvalid:
    """Return the refusal of a text as a whole."""
    return LinesInvalid(detail, members={"created": 0, "failed": 0, "errors": rendered(faults)})


def refused_before_header(line: int, error: CatalogError) -> LinesInvalid:
    """Return the refusal of a text that has a fault before its header is complete."""
    return header_refused(faults_of(line, error))
