"""Interfaces of a format: an incremental reader and an incremental writer."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from catalog.products.bulk.formats.lines import Found


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
