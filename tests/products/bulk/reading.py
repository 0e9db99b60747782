"""Texts that arrive in pieces, read by the readers of bulk formats."""

from catalog.products.bulk.formats import Parsed, Reader


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def read_with(reader: Reader, text: bytes, *, size: int = 1 << 16) -> list[Parsed]:
    """Return the records of a text that arrives in pieces of a size."""
    found = [each for piece in pieces(text, size) for each in reader.read(piece)]
    found += reader.read(b"", is_last=True)
    told = [each() if callable(each) else each for each in found]
    return [each for each in told if each is not None]
