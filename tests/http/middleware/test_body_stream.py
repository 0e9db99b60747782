"""Streamed and incomplete request bodies, without a server."""

import asyncio
import gzip
from functools import partial
from typing import Any

import pytest

from catalog.http.middleware.body_stream import pieces_of
from catalog.http.middleware.content_coding import decoded_body
from catalog.http.middleware.request_body import BoundedBodies
from catalog.http.request import current_request
from tests.http.wire import (
    JSON,
)
from tests.support import handling

TIMEOUT_SECONDS = 4


class Handler:
    """App behind the middleware that reads a given number of pieces, or all, and responds.

    Attributes:
        pieces: the pieces that it has read.
    """

    def __init__(self, *, reads: int | None) -> None:
        self._reads = reads
        self.pieces: list[bytes] = []

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        stream: Any = current_request().stream
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        while self._reads is None or len(self.pieces) < self._reads:
            try:
                self.pieces.append(await anext(stream))
            except StopAsyncIteration:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        assert (await receive())["type"] == "http.disconnect"


class Server:
    """Server whose client sends pieces; queues them as hypercorn does.

    Attributes:
        sent: the events that the app has sent.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        self.sent: list[Any] = []
        self._queue: asyncio.Queue[Any] = asyncio.Queue(10)
        self._pieces = pieces

    async def _receive_from_client(self) -> None:
        for number, piece in enumerate(self._pieces, 1):
            more = number < len(self._pieces)
            await self._queue.put({"type": "http.request", "body": piece, "more_body": more})

    async def _send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._queue.put({"type": "http.disconnect"})

    async def serve(self, app: Any, *headers: tuple[bytes, bytes]) -> int:
        """Serve a request to a streamed path; returns the number of events left in the queue."""
        scope: Any = {"type": "http", "method": "POST", "path": "/many/", "headers": list(headers)}
        streamed = {"/many": ["text/csv"]}
        bounded = BoundedBodies(
            app, max_bytes=10, timeout=TIMEOUT_SECONDS, max_waiting=8, streamed=streamed
        )
        arriving = asyncio.create_task(self._receive_from_client())
        async with asyncio.timeout(TIMEOUT_SECONDS):
            with handling(**scope):
                await bounded(scope, self._queue.get, self._send)
        arriving.cancel()
        return self._queue.qsize()

    @property
    def closes(self) -> bool:
        return (b"connection", b"close") in self.sent[0]["headers"]


CSV = (b"content-type", b"text/CSV; charset=utf-8")
CHUNKED = (b"transfer-encoding", b"chunked")
GZIP = (b"content-encoding", b"gzip")


class TestPiecesOf:
    @pytest.mark.parametrize("is_encoded", [False, True])
    async def test_body_that_is_not_streamed_is_asked_for_once_and_decoded(
        self, is_encoded: bool
    ) -> None:
        asked = []

        async def ask() -> bytes:
            asked.append(True)
            return gzip.compress(b"lines") if is_encoded else b"lines"

        with handling() as request:
            request.ask = ask
            if is_encoded:
                request.decode = partial(decoded_body, max_bytes=10)

            for _ in range(2):
                assert [piece async for piece in pieces_of(request)] == [b"lines"]

        assert asked == [True]


class TestStream:
    async def test_pieces_are_passed_on_unchanged_in_any_number(self) -> None:
        pieces = [b"piece %d" % number for number in range(100)]
        handler, server = Handler(reads=None), Server(pieces)

        await server.serve(handler, CSV, CHUNKED)

        assert handler.pieces == pieces
        assert not server.closes

    async def test_gzip_is_decoded_as_it_arrives(self) -> None:
        encoded = gzip.compress(b"name,price\r\n" * 1000)
        pieces = [encoded[start : start + 7] for start in range(0, len(encoded), 7)]
        handler, server = Handler(reads=None), Server(pieces)

        await server.serve(handler, CSV, CHUNKED, GZIP)

        assert b"".join(handler.pieces) == b"name,price\r\n" * 1000
        assert not server.closes

    async def test_other_coding_is_refused_before_the_stream_is_read(self) -> None:
        handler, server = Handler(reads=None), Server([b"x"] * 1000)

        await server.serve(handler, CSV, CHUNKED, (b"content-encoding", b"br"))

        assert server.sent[0]["status"] == 415
        assert (b"accept-encoding", b"gzip") in server.sent[0]["headers"]
        assert server.closes
        assert handler.pieces == []

    @pytest.mark.parametrize("reads", [0, 3])
    async def test_response_before_the_end_of_the_body_closes_the_connection(
        self, reads: int
    ) -> None:
        handler, server = Handler(reads=reads), Server([b"x"] * 1000)

        await server.serve(handler, CSV, CHUNKED)

        assert len(handler.pieces) == reads
        assert server.closes
        assert b"".join(message["body"] for message in server.sent[1:]) == b"done"

    async def test_stream_is_read_on_demand(self) -> None:
        asked = 0
        read = asyncio.Event()

        async def receive() -> Any:
            nonlocal asked
            asked += 1
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def handler(*_: object) -> None:
            stream: Any = current_request().stream
            await anext(stream)
            read.set()
            await asyncio.Event().wait()

        scope: Any = {"type": "http", "method": "POST", "path": "/", "headers": [CSV, CHUNKED]}
        streamed = {"": ["text/csv"]}
        bounded = BoundedBodies(handler, max_bytes=10, timeout=1, max_waiting=8, streamed=streamed)
        with handling(**scope):
            serving = asyncio.ensure_future(bounded(scope, receive, receive))  # type: ignore[arg-type]
        await read.wait()
        await asyncio.sleep(0)
        serving.cancel()

        assert asked == 1

    @pytest.mark.parametrize(
        "headers",
        [[CSV, CHUNKED, (b"content-length", b"5")], [JSON, CHUNKED]],
        ids=["two-lengths", "too-large"],
    )
    async def test_refusal_does_not_block_on_a_full_queue(
        self, headers: list[tuple[bytes, bytes]]
    ) -> None:
        # With a full queue, the server would block for ever on the disconnect event.
        server = Server([b"x"] * 1000)

        await server.serve(Handler(reads=None), *headers)

        assert server.sent[0]["status"] in {400, 413}
        assert server.closes


class TestIncompleteBodies:
    """Incomplete bodies are bounded in number; the oldest is rejected first."""

    async def test_oldest_body_is_rejected_when_too_many_are_incomplete(self) -> None:
        answered: dict[int, int] = {}

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            assert current_request().body == b"ab"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        bounded = BoundedBodies(
            app, max_bytes=10, timeout=TIMEOUT_SECONDS, max_waiting=2, streamed={}
        )

        async def serve(number: int, queue: asyncio.Queue[Any]) -> None:
            async def send(message: Any) -> None:
                answered.setdefault(number, message.get("status"))

            scope: Any = {
                "type": "http",
                "method": "POST",
                "path": "/",
                "headers": [(b"content-length", b"2")],
            }
            with handling(**scope):
                await bounded(scope, queue.get, send)

        queues = [asyncio.Queue[Any]() for _ in range(4)]
        async with asyncio.timeout(TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
            for number, queue in enumerate(queues):
                queue.put_nowait({"type": "http.request", "body": b"a", "more_body": True})
                group.create_task(serve(number, queue))
            while len(answered) < 2:
                await asyncio.sleep(0)
            assert answered == {0: 503, 1: 503}
            assert bounded.waiting_bytes == 2
            for queue in queues:
                queue.put_nowait({"type": "http.request", "body": b"b", "more_body": False})

        assert answered == {0: 503, 1: 503, 2: 200, 3: 200}
        assert bounded.waiting_bytes == 0
