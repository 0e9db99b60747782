"""Streamed replies: their pieces, their end, and failures on the way."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from quart import Quart
from structlog.testing import capture_logs

from catalog.errors import CatalogError, DatabaseUnavailable
from catalog.http.replies.reply import Reply
from catalog.http.replies.streaming import stream_reply
from tests.support import handling


async def pieces_of(*pieces: bytes | CatalogError) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        if isinstance(piece, CatalogError):
            raise piece
        yield piece


async def streamed(app: Quart, *pieces: bytes | CatalogError, method: str = "GET") -> Reply:
    with handling(app, method=method):
        return await stream_reply(
            pieces_of(*pieces), media_type="text/csv", headers={"ETag": '"a"'}
        )


async def body_of(reply: Reply) -> list[bytes]:
    body: Any = reply.body
    return [piece async for piece in body]


class TestStream:
    async def test_reply_has_the_pieces_as_they_are(self, bare_app: Quart) -> None:
        reply = await streamed(bare_app, b"a", b"b", b"c")

        assert reply.media_type == "text/csv; charset=utf-8"
        assert reply.headers == {"ETag": '"a"', "X-Accel-Buffering": "no"}
        assert await body_of(reply) == [b"a", b"b", b"c"]

    async def test_reply_without_pieces_is_empty(self, bare_app: Quart) -> None:
        assert b"".join(await body_of(await streamed(bare_app))) == b""

    async def test_head_has_no_body_and_produces_none(self, bare_app: Quart) -> None:
        reply = await streamed(bare_app, DatabaseUnavailable(), method="HEAD")

        assert reply.body == b""

    async def test_failure_of_the_first_piece_is_the_response(self, bare_app: Quart) -> None:
        with pytest.raises(DatabaseUnavailable):
            await streamed(bare_app, DatabaseUnavailable())

    async def test_failure_of_a_later_piece_ends_the_response_early(self, bare_app: Quart) -> None:
        reply = await streamed(bare_app, b"a", DatabaseUnavailable("gone"))

        with capture_logs() as logs, pytest.raises(TimeoutError):
            await body_of(reply)

        (line,) = logs
        assert (line["event"], line["code"]) == ("stream_aborted", "database-unavailable")
        assert line["request_id"] == "request"
