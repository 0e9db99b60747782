"""Content codings of request bodies: what is decoded, what is refused, and the bounds of both."""

import asyncio
import gzip
import json
import random
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart

from catalog.errors import BodyTooLarge, MalformedRequest, UnsupportedMediaType
from catalog.http.middleware.content_coding import (
    MAX_RATIO,
    PIECE_BYTES,
    STEP_BYTES,
    UNRATED_BYTES,
    GzipDecoder,
    decoded,
    decoded_body,
    is_gzip,
)
from catalog.http.middleware.request_body import MAX_BODY_BYTES
from tests.support import Caller, problem_of

LAMP = b'{"name": "Lamp", "price": 1}'
HEAD = gzip.compress(b"")[:10]


def bits_of(*fields: tuple[int, int]) -> str:
    """Return numbers of some bits each, the lowest bit first, as in RFC 1951, section 3.1.1."""
    return "".join(f"{number:0{count}b}"[::-1] for number, count in fields)


def blocks(block: str, size: int) -> bytes:
    """Return the beginning of a gzip stream with one block over and over."""
    bits = block * 8
    octets = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    return HEAD + octets * (size // len(octets))


# An empty block with Huffman tables of its own: the slowest input for its size, and no output.
# Lengths of the code lengths in their order: only those of 18 and of 1 are 1.
_LENGTHS = [(1 if place in {2, 17} else 0, 3) for place in range(18)]
_SYMBOLS = [(1, 1), (138 - 11, 7), (1, 1), (118 - 11, 7), (0, 1), (0, 1), (0, 1)]
EMPTY_TABLES = bits_of((0, 1), (2, 2), (0, 5), (0, 5), (14, 4), *_LENGTHS, *_SYMBOLS)

BOMBS = {
    "newlines": gzip.compress(b"\n" * (64 << 20)),
    "empty-tables": blocks(EMPTY_TABLES, MAX_BODY_BYTES),
    "empty-stored": blocks(bits_of((0, 3), (0, 5), (0, 16), (0xFFFF, 16)), MAX_BODY_BYTES),
    "empty-fixed": blocks(bits_of((0, 1), (1, 2), (0, 7)), MAX_BODY_BYTES),
    "empty-members": gzip.compress(b"") * (MAX_BODY_BYTES // 20) + HEAD,
    "large-members": gzip.compress(b"\n" * PIECE_BYTES) * 1024,
}


async def pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def content_of(data: bytes, size: int = 1000) -> bytes:
    return b"".join([piece async for piece in decoded(pieces_of(data, size))])


class TestIsGzip:
    @pytest.mark.parametrize("values", [["gzip"], ["X-GZip"], [" gzip "], ["identity, gzip"]])
    def test_gzip_is_known_by_both_names(self, values: list[str]) -> None:
        assert is_gzip({b"content-encoding": [value.encode() for value in values]}) is True

    @pytest.mark.parametrize("values", [[], [""], ["identity"], [" Identity,"]])
    def test_other_bodies_are_not_encoded(self, values: list[str]) -> None:
        assert is_gzip({b"content-encoding": [value.encode() for value in values]}) is False

    @pytest.mark.parametrize(
        "values",
        [["br"], ["deflate"], ["zstd"], ["gzip, gzip"], ["gzip", "br"], ["gzip;q=1"], ["x"]],
    )
    def test_other_codings_are_refused_with_the_one_that_is_accepted(
        self, values: list[str]
    ) -> None:
        with pytest.raises(UnsupportedMediaType) as refused:
            is_gzip({b"content-encoding": [value.encode() for value in values]})

        assert refused.value.headers == {"Accept-Encoding": "gzip"}


class TestDecoding:
    @given(st.binary(max_size=5000), st.integers(1, 6000), st.integers(0, 9))
    async def test_text_is_the_same_in_pieces_of_any_size(
        self, text: bytes, size: int, level: int
    ) -> None:
        assert await content_of(gzip.compress(text, level), size) == text

    @pytest.mark.parametrize("size", [1, STEP_BYTES, 1 << 20])
    @pytest.mark.parametrize("length", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 500_000])
    async def test_text_of_many_pieces_is_complete(self, length: int, size: int) -> None:
        text = b"Warm light, oak foot. %d" * (length // 24)
        text += b"x" * (length - len(text))

        assert await content_of(gzip.compress(text), size) == text

    @given(
        st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 9)), min_size=1, max_size=9),
        st.integers(1, 400),
    )
    async def test_members_are_decoded_one_after_the_other(
        self, members: list[tuple[bytes, int]], size: int
    ) -> None:
        data = b"".join(gzip.compress(text, level) for text, level in members)

        assert await content_of(data, size) == b"".join(text for text, _ in members)

    async def test_members_of_many_steps_are_decoded(self) -> None:
        member = gzip.compress(random.Random(7).randbytes(2 * PIECE_BYTES))  # noqa: S311 (repeatable)

        assert await content_of(member * 3, 1 << 20) == gzip.decompress(member) * 3

    @pytest.mark.parametrize("size", [1, 7, 100_000])
    async def test_damaged_stream_is_malformed(self, size: int) -> None:
        whole = gzip.compress(LAMP * 100)
        damaged = {
            "nothing": b"",
            "no-gzip": LAMP,
            "zlib": zlib.compress(LAMP),
            "raw-deflate": zlib.compress(LAMP)[2:-4],
            "cut-by-one": whole[:-1],
            "cut-in-the-head": whole[:5],
            "cut-in-the-middle": whole[: len(whole) // 2],
            "wrong-checksum": whole[:-8] + b"\0" * 8,
            "wrong-length": whole[:-1] + b"\1",
            "flipped": whole[:30] + bytes([whole[30] ^ 0xFF]) + whole[31:],
            "trailing-byte": whole + b"\0",
            "trailing-garbage": whole + b"garbage" * 5000,
            "cut-in-the-second-member": whole + whole[:-1],
            "wrong-checksum-of-the-first-member": whole[:-8] + b"\0" * 8 + whole,
            "another-method": whole[:2] + b"\x07" + whole[3:],
        }
        for name, data in damaged.items():
            with pytest.raises(MalformedRequest) as refused:
                await content_of(data, size)
            assert "gzip stream" in refused.value.detail, name

    async def test_stream_beyond_the_ratio_is_too_large(self) -> None:
        sizes = []

        async def read() -> None:
            async for piece in decoded(pieces_of(BOMBS["newlines"], 4096)):
                sizes.append(len(piece))  # noqa: PERF401 (those before the error count)

        with pytest.raises(BodyTooLarge):
            await read()

        assert sum(sizes) <= UNRATED_BYTES + MAX_RATIO * STEP_BYTES

    async def test_small_text_may_have_any_ratio(self) -> None:
        text = b" " * UNRATED_BYTES

        assert await content_of(gzip.compress(text)) == text

    async def test_large_text_within_the_ratio_is_decoded(self) -> None:
        lines = b"".join(b'{"name":"Lamp %d","price":9.5}\n' % each for each in range(100_000))

        assert await content_of(gzip.compress(lines), 65536) == lines


class TestBounds:
    @pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
    def test_step_is_small_whatever_is_decoded(self, data: bytes) -> None:
        steps = [0]

        with suppress(BodyTooLarge):
            steps += map(len, GzipDecoder().decode(data))

        assert max(steps) <= PIECE_BYTES
        assert len(steps) > len(data) // STEP_BYTES

    @pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
    async def test_memory_is_bounded_by_the_limit(self, data: bytes) -> None:
        tracemalloc.start()
        with pytest.raises((BodyTooLarge, MalformedRequest)):
            await decoded_body(data, max_bytes=MAX_BODY_BYTES)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert peak < 4 * MAX_BODY_BYTES

    @pytest.mark.parametrize(("turn_seconds", "least", "most"), [(0.0, 16, 64), (3600.0, 0, 1)])
    async def test_other_tasks_run_between_turns(
        self, monkeypatch: pytest.MonkeyPatch, turn_seconds: float, least: int, most: int
    ) -> None:
        # Independent of the processor: turns that are over at once, or, as a control, never.
        monkeypatch.setattr("catalog.concurrency.turns.TURN_SECONDS", turn_seconds)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        with pytest.raises(MalformedRequest):
            await decoded_body(BOMBS["empty-tables"], max_bytes=MAX_BODY_BYTES)
        counting.cancel()

        assert least <= turns <= most


class TestBodies:
    async def send(
        self, caller: Caller, body: bytes, coding: str = "gzip", **headers: str
    ) -> tuple[int, str]:
        given = {"Content-Type": "application/json", "Content-Encoding": coding, **headers}
        answer = await caller.post(
            "/api/products", data=body, headers=given | {"Content-Length": str(len(body))}
        )
        return problem_of(answer)

    async def test_gzip_of_json_is_read(self, holder: Caller) -> None:
        body = gzip.compress(b"{}")

        assert await self.send(holder, body) == (422, "invalid")
        assert await self.send(holder, body, "X-GZIP") == (422, "invalid")
        assert await self.send(holder, b"{}", "identity") == (422, "invalid")

    async def test_body_that_decodes_to_more_than_the_limit_is_too_large(
        self, holder: Caller
    ) -> None:
        padded = json.dumps({"pad": "x" * (MAX_BODY_BYTES - 11)}).encode()
        assert len(padded) == MAX_BODY_BYTES

        assert await self.send(holder, gzip.compress(padded)) == (422, "invalid")
        assert await self.send(holder, gzip.compress(padded + b" ")) == (413, "body-too-large")

    @pytest.mark.parametrize(
        "body",
        [b"", LAMP, gzip.compress(LAMP)[:-1], gzip.compress(LAMP) + LAMP, HEAD + b"garbage"],
        # Not the bytes, which hold the time.
        ids=["empty", "plain", "cut", "plain behind it", "garbage"],
    )
    async def test_body_that_is_no_gzip_stream_is_malformed(
        self, holder: Caller, body: bytes
    ) -> None:
        assert await self.send(holder, body) == (400, "malformed")

    async def test_body_is_decoded_behind_the_guard(self, stranger: Caller) -> None:
        assert await self.send(stranger, HEAD + b"garbage") == (401, "token-missing")

    @pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip"])
    async def test_other_coding_is_refused(self, holder: Caller, coding: str) -> None:
        headers = {"Content-Type": "application/json", "Content-Encoding": coding}

        answer = await holder.post("/api/products", data=LAMP, headers=headers)

        assert problem_of(answer) == (415, "unsupported-media-type")
        assert answer.headers["Accept-Encoding"] == "gzip"

    async def test_products_are_created_from_gzip(self, app: Quart) -> None:
        ada = await Caller.signed_up(app, "ada")
        lines = b"".join(b'{"name":"Lamp %d","price":1}\n' % each for each in range(5000))
        bulk = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}

        one = await ada.post(
            "/api/products",
            data=gzip.compress(b"\xef\xbb\xbf" + LAMP),
            headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
        )
        many = await ada.post("/api/products", data=gzip.compress(lines), headers=bulk)
        members = await ada.post(
            "/api/products", data=b"".join(map(gzip.compress, lines.splitlines(True))), headers=bulk
        )
        cut = await ada.post("/api/products", data=gzip.compress(lines)[:-9], headers=bulk)
        atomic = await ada.post(
            "/api/products?atomic=true", data=gzip.compress(lines)[:-9], headers=bulk
        )
        table = await ada.post(
            "/api/products",
            data=gzip.compress(b"name,price\r\nLamp,1\r\n"),
            headers={**bulk, "Content-Type": "text/csv"},
        )

        assert (one.status_code, one.json["name"]) == (201, "Lamp")
        assert (many.status_code, many.json["created"], many.json["failed"]) == (200, 5000, 0)
        assert (members.status_code, members.json["created"]) == (200, 5000)
        assert problem_of(cut) == problem_of(atomic) == (400, "malformed")
        assert (table.status_code, table.json["created"]) == (200, 1)
        # The error tells how much had been created before.
        total = (await ada.get("/api/products/my?total=true&limit=1")).json["total"]
        assert total == 10_002 + cut.json["created"]
        assert cut.json["created"] < 5000
