"""Interfaces of a format: an incremental reader and an incremental writer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from catalog.products.bulk.formats.lines import Found


class Reader(Protocol):
    """Incremental reader of one text.

    Attributes:
        line: the number of the last line of the record that was yielded last.
        first_line: the number of its first line.
    """

    line: int
    first_line: int

    def read(self, piece: bytes, *, is_last: bool = False) -> Iterator[Found]:
        """Yield the lines that the piece completes.

        Each step takes a few milliseconds at most if pieces have no more than about 64 KiB, so that
        the caller can yield to the event loop between steps. The total work is linear in the size
        of the text, however it is split into pieces.

        Raises:
            LinesInvalid: the text is unreadable as a whole.
        """


class ReaderOptions(NamedTuple):
    """Properties of a text that a reader has to know.

    Attributes:
        codec: Python's codec of its encoding.
        guard: whether texts of CSV may have an apostrophe that guards them, as in exports.
        upsert: whether lines may change products, and so are read as ``UpsertLine``.
    """

    codec: str = "utf-8"
    guard: bool = True
    upsert: bool = False


class WriterOptions(NamedTuple):
    """Properties of a text to be written; CSV only.

    Attributes:
        bom: whether it begins with a byte order mark, by which Excel recognizes UTF-8.
        guard: whether an apostrophe precedes texts that a spreadsheet would run as a formula.
    """

    bom: bool = False
    guard: bool = True


_READING, _WRITING = ReaderOptions(), WriterOptions()


class RowWriter(Protocol):
    """Incremental writer of one text."""

    def head(self) -> bytes:
        """Return the text before the first product."""

    def write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """Encode products, given as rows with the values of the requested fields."""


@dataclass(frozen=True, slots=True, eq=False)
class Format:
    """Text format for products.

    Attributes:
        name: its common name, also used as the file extension.
        media_type: its media type.
        make_reader: creates a reader of one text.
        make_writer: creates a writer of one text with the given fields.
        charsets: the codecs that its texts may be encoded in, by the charsets' names.
    """

    name: str
    media_type: str
    make_reader: Callable[[ReaderOptions], Reader]
    make_writer: Callable[[Sequence[str], WriterOptions], RowWriter]
    charsets: Mapping[str, str]

    def reader(self, options: ReaderOptions = _READING) -> Reader:
        """Return a reader of one text."""
        return self.make_reader(options)

    def writer(self, fields: Sequence[str], options: WriterOptions = _WRITING) -> RowWriter:
        """Return a writer of one text with some fields."""
        return self.make_writer(fields, options)
