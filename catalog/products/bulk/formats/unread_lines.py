"""Counters of lines that are not read: after an open quote, or in a wrong encoding."""

import re

from catalog.errors import CatalogError
from catalog.products.bulk.formats.lines import LineFault, UnreadLines

_BLANK = " \t\r,;"
# The first character of each complete line that is not blank.
_LINES = re.compile(rf"[{_BLANK}]*+([^\n]?)[^\n]*+\n")

# From outside quoted cells to the first line break outside of them.
_TO_END = re.compile(r'(?:[^"\n]*+"[^"]*+")*+[^"\n]*+\n')


class LineCounter:
    """Counter of the lines of a text that is not read, in pieces of any size.

    Attributes:
        breaks: the number of line breaks.
    """

    def __init__(self) -> None:
        self.breaks = 0
        self._records = 0
        # Whether the incomplete last line has begun, and whether it is not blank.
        self._has_begun = False
        self._is_record = False

    @property
    def records(self) -> int:
        """Number of lines that are not blank; rows of separators are."""
        return self._records + self._is_record

    @property
    def lines(self) -> int:
        """Number of lines, the incomplete last one included."""
        return self.breaks + self._has_begun

    def count(self, text: str) -> None:
        """Count the next piece."""
        first, is_complete, rest = text.partition("\n")
        self._has_begun |= bool(first)
        self._is_record |= bool(first.strip(_BLANK))
        if not is_complete:
            return
        end = rest.rfind("\n") + 1
        found = _LINES.findall(rest, 0, end)
        self.breaks += 1 + len(found)
        self._records += self._is_record + len(found) - found.count("")
        self._has_begun = end < len(rest)
        self._is_record = bool(rest[end:].strip(_BLANK))


class OverlongRecord:
    """Record that is too long; keeps only the state for finding its end.

    It ends after the first line at which the number of its double quotes is even.

    Attributes:
        counter: counts its lines.
    """

    def __init__(self) -> None:
        self.counter = LineCounter()
        self._is_quoted = False

    def begin(self, text: str) -> None:
        """Count a part of the record that was read before its length was known."""
        self.counter.count(text)
        self._is_quoted ^= text.count('"') % 2 == 1

    def read(self, text: str) -> str | None:
        """Return the text after the record; None while the record continues."""
        # Begin after the quote that closes the cell, if one is open.
        start = text.find('"') + 1 if self._is_quoted else 0
        found = _TO_END.match(text, start) if start or not self._is_quoted else None
        if found is None:
            self.counter.count(text)
            self._is_quoted ^= text.count('"') % 2 == 1
            return None
        self.counter.count(text[: found.end()])
        return text[found.end() :]


def unread(line: int, counter: LineCounter, error: CatalogError) -> UnreadLines:
    """Return the fault of lines that were not read.

    Args:
        line: the number of the first one.
        counter: has counted them.
        error: the error that a single create would get.
    """
    last_line = line + max(counter.lines, 1) - 1
    message, several = error.detail, None
    if last_line > line:
        several = last_line
        message += f" Nothing was read from line {line} to line {last_line}."
    fault = LineFault(line, error.slug, message, last_line=several)
    return UnreadLines(fault, max(counter.records, 1))
