"""Content codings of request bodies: gzip (RFC 1952), decoded as it arrives."""

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from functools import partial

from catalog.concurrency.turns import Turn
from catalog.errors import BodyTooLarge, MalformedRequest, UnsupportedMediaType
from catalog.http.request import Fields

STEP_BYTES = 8 * 1024
"""Most encoded bytes that are decoded in one step. The slowest are empty blocks with Huffman tables
of their own: 64 KiB of them take 15 ms or more, and decode to nothing."""

PIECE_BYTES = 64 * 1024
"""Most decoded bytes of one step."""

MAX_RATIO = 100
UNRATED_BYTES = 1024 * 1024
"""Largest ratio of decoded to encoded bytes, and the decoded bytes that any body may have. Products
with numbered names reach 15, one product over and over some 400, and a bomb 1,032."""

_inflater = partial(zlib.decompressobj, wbits=16 + zlib.MAX_WBITS)


def is_gzip(fields: Fields) -> bool:
    """Return whether a request's body is encoded by gzip, or not at all.

    Raises:
        UnsupportedMediaType: it is encoded otherwise, or several times (RFC 9110, section 15.5.16).
    """
    listed = b",".join(fields.get(b"content-encoding", ())).lower().split(b",")
    codings = [coding for each in listed if (coding := each.strip()) not in {b"", b"identity"}]
    if not codings:
        return False
    # RFC 9110, section 8.4.1.3: both names are the same coding.
    if codings in ([b"gzip"], [b"x-gzip"]):
        return True
    raise UnsupportedMediaType(
        "The only content coding of a body may be gzip.", headers={"Accept-Encoding": "gzip"}
    )


class GzipDecoder:
    """Incremental decoder of a gzip stream, in steps that take a few milliseconds.

    It may have several members (RFC 1952, section 2.2), as ``pigz`` and ``cat`` write it.
    """

    def __init__(self) -> None:
        self._inflater = _inflater()
        self._encoded = self._decoded = 0

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next encoded bytes decode to, in pieces, some of which may be empty.

        Raises:
            MalformedRequest: the bytes are not gzip.
            BodyTooLarge: they decode to too many times their size.
        """
        for start in range(0, len(data), STEP_BYTES):
            rest = data[start : start + STEP_BYTES]
            self._encoded += len(rest)
            piece = b""
            # A full piece may leave output behind even when all input is consumed.
            while rest or len(piece) == PIECE_BYTES:
                piece = self._step(rest)
                # What is left of this member, or what follows its end.
                rest = self._inflater.unconsumed_tail or self._inflater.unused_data
                yield piece

    def _step(self, rest: bytes) -> bytes:
        if rest and self._inflater.eof:
            self._inflater = _inflater()
        try:
            piece = self._inflater.decompress(rest, PIECE_BYTES)
        except zlib.error:
            raise MalformedRequest("The body is not a valid gzip stream.") from None
        self._decoded += len(piece)
        if self._decoded > max(UNRATED_BYTES, MAX_RATIO * self._encoded):
            raise BodyTooLarge(f"A body may decode to at most {MAX_RATIO} times its size.")
        return piece

    def finish(self) -> None:
        """Check that the stream is complete.

        Raises:
            MalformedRequest: it is not.
        """
        if not self._inflater.eof:
            raise MalformedRequest("The body ends within its gzip stream.")


async def decoded(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the content of a gzip stream in pieces of at most ``PIECE_BYTES``.

    Raises:
        MalformedRequest: the stream is not valid or not complete.
        BodyTooLarge: it decodes to too many times its size.
    """
    decoder = GzipDecoder()
    turn = Turn()
    async for encoded in pieces:
        for piece in decoder.decode(encoded):
            if piece:
                yield piece
            await turn.yield_if_over()
    decoder.finish()


async def decoded_body(body: bytes, *, max_bytes: int) -> bytes:
    """Return the content of a body that is encoded by gzip.

    Raises:
        BodyTooLarge: it decodes to more than ``max_bytes``.
        MalformedRequest: as ``decoded``.
    """
    parts: list[bytes] = []
    size = 0
    async for piece in decoded(_all_at_once(body)):
        parts.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise BodyTooLarge(f"A body may decode to at most {max_bytes} bytes.")
    return b"".join(parts)


async def _all_at_once(body: bytes) -> AsyncIterator[bytes]:
    yield body
