"""Connections in this process: time-outs, shutdown, and what an ended one leaves behind."""

import asyncio
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from catalog.errors import CatalogError
from catalog.fastpath.connection import PlainTCPServer
from catalog.fastpath.http1 import PlainH11Protocol
from catalog.fastpath.incomplete_head import IncompleteHead
from catalog.fastpath.refusal_rate import RefusalRate
from catalog.fastpath.response import Response
from catalog.http.middleware.lingering_close import lingering
from catalog.http.replies.reply import Reply, send_reply
from catalog.http.response_buffers import ResponseBuffers
from tests.server.service import Connection
from tests.support import until


class Quick:
    """An application with delayable responses, on a server with a short idle time-out.

    It is both of the server's applications: the direct path, if ``is_direct``, and the general one.
    Unless it ``is_reading``, it responds with lingering close.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.asked = asyncio.Event()
        self.shutdown = asyncio.Event()
        self.is_direct = True
        self.is_reading = True
        self._connections: list[Connection] = []

    async def connect(self, url: str) -> Connection:
        connection = await Connection.open(url)
        self._connections.append(connection)
        return connection

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        reply = await self._reply(scope)
        await send_reply(send if self.is_reading else lingering(receive, send), reply)

    def find(self, scope: Any, _body: bytes) -> Any:
        return scope if self.is_direct else None

    async def answer(self, scope: Any, _body: bytes, send: Any) -> None:
        await send(Response(await self._reply(scope), own=[], is_private=False))

    async def refuse(self, _scope: Any, error: CatalogError, send: Any) -> None:
        await send(Response(Reply(b"", status=error.status), own=[], is_private=False))

    async def _reply(self, scope: Any) -> Reply:
        self.asked.set()
        await self.go.wait()
        if scope["path"] == "/fails":
            raise RuntimeError("on purpose")
        headers = {"X": "a\r\nb: c"} if scope["path"] == "/splits" else {}
        return Reply(b"ok", status=503 if scope["path"] == "/refuses" else 200, headers=headers)

    @asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[str]:
        config = Config()
        config.errorlog = logging.getLogger("hypercorn.error")
        for name, value in options.items():
            setattr(config, name, value)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config.bind = [f"fd://{listener.fileno()}"]
            task = asyncio.create_task(serve(self, config, shutdown_trigger=self.shutdown.wait))
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                self.shutdown.set()
                for connection in self._connections:
                    await connection.close()
                await task
            listener.detach()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Quick:
    """Return the server with this project's protocol, in this process; every request is quick."""
    server = Quick()
    monkeypatch.setattr(PlainH11Protocol, "direct", server, raising=False)
    monkeypatch.setattr("hypercorn.protocol.H11Protocol", PlainH11Protocol)
    buffers = ResponseBuffers(max_bytes=1024 * 1024, timeout=10)
    monkeypatch.setattr(PlainTCPServer, "buffers", buffers, raising=False)
    monkeypatch.setattr("hypercorn.asyncio.run.TCPServer", PlainTCPServer)
    return server


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestSlowRequestHead:
    async def test_trickling_head_ends_the_connection(
        self, quick: Quick, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.fastpath.connection.HEAD_SECONDS", 0.2)
        async with quick.serving() as url:
            connection = await quick.connect(url)
            # Not limited by the time between bytes, which each byte would reset.
            async with asyncio.timeout(30):
                await connection.send(b"GET / HTTP/1.1\r\nX-Slow: ")
                with suppress(ConnectionError):
                    while not connection.reader.at_eof():
                        await connection.send(b"a")
                        with suppress(TimeoutError):
                            assert await asyncio.wait_for(connection.reader.read(1), 0.05) == b""

    async def test_head_in_pieces_is_answered_and_the_connection_stays_open(
        self, quick: Quick, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.fastpath.connection.HEAD_SECONDS", 1.0)
        async with quick.serving() as url:
            connection = await quick.connect(url)
            await connection.send(b"GET / HTTP/1.1\r\nHo")
            await connection.send(b"st: catalog\r\n\r\n")
            first = await connection.answer()
            await asyncio.sleep(1.3)

            assert (first.status, (await connection.get("/")).status) == (200, 200)

    async def test_long_heads_beyond_the_bound_are_refused(
        self, quick: Quick, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        long, end = b"GET / HTTP/1.1\r\nHost: catalog\r\nX: " + b"a" * 7000, b"\r\n\r\n"
        monkeypatch.setattr("catalog.fastpath.incomplete_head.MAX_BYTES", 3 * len(long))
        async with quick.serving() as url:
            waiting = [await quick.connect(url) for _ in range(3)]
            for connection in waiting:
                await connection.send(long)
            await until(lambda: IncompleteHead.total_bytes == 3 * len(long))

            refused, short = await quick.connect(url), await quick.connect(url)
            await refused.send(long)
            answer = await refused.answer()
            await short.send(long[:100])
            await until(lambda: IncompleteHead.total_bytes > 3 * len(long))
            await short.send(end)

            assert (answer.status, answer.closes) == (503, True)
            assert (await short.answer()).status == 200
            for connection in waiting[:2]:
                await connection.send(end)
                assert (await connection.answer()).status == 200
            for connection in (waiting[2], refused):
                await connection.close()
            await until(lambda: IncompleteHead.total_bytes == 0)
            admitted = await quick.connect(url)
            await admitted.send(long)
            await until(lambda: IncompleteHead.total_bytes == len(long))
            await admitted.send(end)
            assert (await admitted.answer()).status == 200


class TestEndedConnection:
    @pytest.mark.parametrize("is_direct", [True, False])
    @pytest.mark.parametrize("requests", [0, 2])
    async def test_ended_connection_is_freed_without_the_garbage_collector(
        self, quick: Quick, monkeypatch: pytest.MonkeyPatch, is_direct: bool, requests: int
    ) -> None:
        quick.is_direct = is_direct
        run = PlainTCPServer.run
        alive: WeakSet[PlainTCPServer] = WeakSet()
        ended = asyncio.Semaphore(0)

        async def noted_run(server: PlainTCPServer) -> None:
            alive.add(server)
            try:
                await run(server)
            finally:
                ended.release()

        monkeypatch.setattr(PlainTCPServer, "run", noted_run)
        async with quick.serving() as url:
            gc.disable()
            try:
                for _ in range(5):
                    connection = await Connection.open(url)
                    for _ in range(requests):
                        assert (await connection.get("/")).status == 200
                    await connection.close()
                    await ended.acquire()
                # The loop still holds the tasks of the last one for a moment.
                await until(lambda: len(alive) <= 1)
            finally:
                gc.enable()


class TestConnection:
    async def test_used_connection_stays_open_and_idle_one_is_closed(self, quick: Quick) -> None:
        async with quick.serving(keep_alive_timeout=4) as url:
            connection = await quick.connect(url)
            for _ in range(3):
                await asyncio.sleep(1.5)
                assert (await connection.get("/")).body == b"ok"

            async with asyncio.timeout(30):
                assert await connection.reader.read() == b""

    async def test_connection_waiting_for_its_response_is_not_idle(self, quick: Quick) -> None:
        async with quick.serving(keep_alive_timeout=1) as url:
            connection = await quick.connect(url)
            quick.go.clear()
            answer = asyncio.create_task(connection.get("/"))
            await asyncio.sleep(1.3)
            quick.go.set()

            assert (await answer).body == b"ok"

    @pytest.mark.parametrize("is_quick", [True, False], ids=["quick", "slow"])
    @pytest.mark.parametrize("in_time", [True, False], ids=["answered", "asking"])
    async def test_disconnected_client_leaves_no_open_file(
        self, quick: Quick, is_quick: bool, in_time: bool
    ) -> None:
        quick.is_direct = is_quick
        async with quick.serving(keep_alive_timeout=600) as url:
            before = open_files()
            for _ in range(20):
                connection = await quick.connect(url)
                if in_time:
                    assert (await connection.get("/")).status == 200
                else:
                    quick.go.clear()
                    quick.asked.clear()
                    await connection.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                    await quick.asked.wait()
                await connection.close()
                quick.go.set()

            await until(lambda: open_files() == before)

    async def test_body_of_tiny_chunks_after_a_refusal_does_not_hold_the_loop(
        self, quick: Quick
    ) -> None:
        quick.is_direct = quick.is_reading = False
        async with quick.serving() as url:
            connection = await quick.connect(url)

            async def send_chunks() -> None:
                await connection.send(
                    b"POST / HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                with suppress(OSError):
                    while True:
                        await connection.send(b"1\r\na\r\n" * 40_000)

            sending = asyncio.create_task(send_chunks())
            answer = asyncio.create_task(connection.answer())
            longest = 0.0
            while not sending.done():
                # Of this thread's CPU, so that other processes do not count.
                began = time.thread_time()
                await asyncio.sleep(0)
                longest = max(longest, time.thread_time() - began)

            assert (await answer).closes

        assert longest < 0.1

    async def test_response_in_flight_is_finished_at_shutdown(self, quick: Quick) -> None:
        async with quick.serving() as url:
            idle, busy = await quick.connect(url), await quick.connect(url)
            assert (await idle.get("/")).status == 200
            quick.go.clear()
            quick.asked.clear()
            answer = asyncio.create_task(busy.get("/"))
            await quick.asked.wait()
            quick.shutdown.set()
            async with asyncio.timeout(30):
                assert await idle.reader.read() == b""
            quick.go.set()

            assert (await answer).body == b"ok"
            assert await busy.reader.read() == b""

    async def test_connection_closes_after_its_maximum_of_requests(self, quick: Quick) -> None:
        async with quick.serving(keep_alive_max_requests=3) as url:
            connection = await quick.connect(url)
            answers = [await connection.get("/") for _ in range(3)]

            assert [answer.closes for answer in answers] == [False, False, True]
            assert await connection.reader.read() == b""

    async def test_repeatedly_refused_clients_are_read_at_a_limited_rate(
        self, quick: Quick, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.fastpath.refusal_rate.REFUSALS_A_SECOND", 20)
        monkeypatch.setattr(PlainH11Protocol, "refusal_rate", RefusalRate())
        async with quick.serving() as url:
            clients = [await quick.connect(url) for _ in range(4)]
            began = time.monotonic()
            for _ in range(3):
                answers = await asyncio.gather(*(client.get("/refuses") for client in clients))
                assert {answer.status for answer in answers} == {503}
            # The first response to each client is immediate, the other eight come at 20 a second.
            assert time.monotonic() - began > 0.3

            other = await quick.connect(url)
            assert (await other.get("/")).status == 200

    @pytest.mark.parametrize("path", ["/fails", "/splits"])
    async def test_failing_application_gets_500(self, quick: Quick, path: str) -> None:
        async with quick.serving() as url:
            connection = await quick.connect(url)
            answer = await connection.get(path)

            assert (answer.status, answer.closes, answer.body) == (500, True, b"")
            assert await connection.reader.read() == b""
