"""HTTP/1.1 extensions are refused, so that none bypasses a proxy's rules."""

import asyncio
import gc
import gzip
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakSet

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from catalog.fastpath.connection import PlainTCPServer
from catalog.fastpath.http1 import PlainH11Protocol
from catalog.fastpath.response import Response
from catalog.http.middleware.lingering_close import lingering
from catalog.http.replies.reply import Reply, send_reply
from catalog.http.response_buffers import ResponseBuffers
from tests.server.service import Answer, Connection, Service, until
from tests.support import PASSWORD


class TestHttp2:
    async def test_upgrade_is_ignored(self, shared_service: Service) -> None:
        connection = await shared_service.connect()
        fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")

        upgrade = await connection.get("/livez", *fields)
        then = await connection.get("/livez")

        assert (upgrade.status, upgrade.headers["content-type"]) == (200, "application/json")
        assert then.status == 200

    @pytest.mark.parametrize("version", ["2.0", "3.7"])
    async def test_other_http_version_is_refused(
        self, shared_service: Service, version: str
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(f"PRI * HTTP/{version}\r\n\r\nSM\r\n\r\n".encode())
        answer = await connection.answer()

        assert answer.status == 505
        assert answer.closes
        assert await connection.reader.read() == b""


class TestStatusLine:
    @pytest.mark.parametrize(
        ("head", "line"),
        [
            ("GET /livez HTTP/1.1", b"HTTP/1.1 200 OK\r\n"),
            ("GET /%6civez HTTP/1.1", b"HTTP/1.1 200 OK\r\n"),
            ("GET /api/products/7 HTTP/1.1", b"HTTP/1.1 404 Not Found\r\n"),
            ("GET /nothing HTTP/1.1", b"HTTP/1.1 404 Not Found\r\n"),
            ("get /livez HTTP/1.1", b"HTTP/1.1 501 Not Implemented\r\n"),
            ("GET /livez HTTP/3.7", b"HTTP/1.1 505 HTTP Version Not Supported\r\n"),
        ],
    )
    async def test_status_line_has_a_reason_phrase(
        self, shared_service: Service, head: str, line: bytes
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(f"{head}\r\nHost: localhost\r\n\r\n".encode())

        assert await connection.reader.readline() == line


class TestSlowRequestHead:
    async def test_trickling_head_ends_the_connection(
        self, quick: "Quick", monkeypatch: pytest.MonkeyPatch
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
        self, quick: "Quick", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.fastpath.connection.HEAD_SECONDS", 1.0)
        async with quick.serving() as url:
            connection = await quick.connect(url)
            await connection.send(b"GET / HTTP/1.1\r\nHo")
            await connection.send(b"st: catalog\r\n\r\n")
            first = await connection.answer()
            await asyncio.sleep(1.3)

            assert (first.status, (await connection.get("/")).status) == (200, 200)


class TestHttp10:
    @pytest.mark.parametrize("path", ["/livez", "/api/products", "/readyz", "/nothing"])
    async def test_connection_stays_open_if_the_client_asks_for_it(
        self, shared_service: Service, path: str
    ) -> None:
        connection = await shared_service.connect()
        head = f"GET {path} HTTP/1.0\r\nHost: catalog\r\nConnection: Keep-Alive\r\n\r\n".encode()

        answers = []
        for _ in range(3):
            await connection.send(head)
            answers.append(await connection.answer())
        await connection.send(head.replace(b"Keep-Alive", b"close"))
        last = await connection.answer()

        assert {answer.headers["connection"] for answer in answers} == {"keep-alive"}
        assert {answer.status for answer in answers} == {last.status}
        assert last.closes
        assert await connection.reader.read() == b""

    @pytest.mark.parametrize("path", ["/api/products", "/readyz"])
    async def test_connection_is_closed_by_default(
        self, shared_service: Service, path: str
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(f"GET {path} HTTP/1.0\r\nHost: catalog\r\n\r\n".encode())
        answer = await connection.answer()

        assert (answer.status, answer.closes) == (200, True)
        assert await connection.reader.read() == b""

    async def test_transfer_encoding_ends_the_connection(self, shared_service: Service) -> None:
        connection = await shared_service.connect()

        await connection.send(
            b"POST /api/auth/login HTTP/1.0\r\nHost: catalog\r\nConnection: keep-alive\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\n\r\n"
        )
        answer = await connection.answer()

        assert (answer.status, answer.closes) == (422, True)
        assert await connection.reader.read() == b""

    async def test_response_of_unknown_length_ends_with_the_connection(
        self, shared_service: Service
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(
            b"GET /api/products HTTP/1.0\r\nHost: catalog\r\nConnection: keep-alive\r\n"
            b"Accept: application/x-ndjson\r\n\r\n"
        )
        head, _, _ = (await connection.reader.read()).partition(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close" in head.lower()
        assert b"transfer-encoding" not in head.lower()


class TestAbsoluteForm:
    async def test_import_of_any_size_is_taken(self, shared_service: Service) -> None:
        token = await shared_service.sign_up("absolute")
        connection = await shared_service.connect()
        lines = b'{"name":"Lamp","price":1}\n' * 20_000

        await connection.send(
            b"POST http://catalog/api/products?dry_run=true HTTP/1.1\r\nHost: other\r\n"
            b"Content-Type: application/x-ndjson\r\nAuthorization: Bearer %b\r\n"
            b"Content-Length: %d\r\n\r\n" % (token.encode(), len(lines)) + lines
        )
        answer = await connection.answer()

        assert answer.status == 200, answer.body
        assert json.loads(answer.body)["created"] == 20_000

    @pytest.mark.parametrize("path", ["/api/products?limit=3", "/livez", "/readyz", "/nothing"])
    async def test_response_is_that_of_origin_form(
        self, shared_service: Service, path: str
    ) -> None:
        connection = await shared_service.connect()

        origin = await connection.get(path)
        absolute = await connection.get(f"http://catalog{path}")

        own = {"date", "x-request-id"}
        assert absolute.status == origin.status
        assert absolute.headers.keys() - own == origin.headers.keys() - own


class TestExpect:
    async def test_100_is_sent_when_the_body_is_read(self, shared_service: Service) -> None:
        connection = await shared_service.connect()
        body = b'{"username": "unknown", "password": "wrong horse"}'

        await connection.send(
            b"POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.send(body)

        assert (await connection.answer()).status == 401

    @pytest.mark.parametrize(
        ("start", "fields", "status"),
        [
            ("POST /api/products", "Content-Type: application/json", 401),
            ("POST /api/products", "Content-Type: text/csv", 401),
            ("PATCH /api/products/1", "Content-Type: application/json", 401),
            ("POST /api/auth/login", "Content-Type: text/plain", 415),
            ("POST /api/auth/login", "Content-Length: 300000", 413),
            ("POST /api/auth/login", "Content-Encoding: br", 415),
            ("POST /api/nothing", "Content-Type: application/json", 404),
            ("POST /livez", "Content-Type: application/json", 405),
            ("PUT /api/auth/login", "Content-Type: application/json", 405),
        ],
    )
    async def test_refused_head_gets_no_100(
        self, shared_service: Service, start: str, fields: str, status: int
    ) -> None:
        connection = await shared_service.connect()
        length = "" if "Length" in fields else "Content-Length: 30\r\n"

        await connection.send(
            f"{start} HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\n"
            f"{length}{fields}\r\n\r\n".encode()
        )
        answer = await connection.answer()

        assert (answer.status, answer.closes) == (status, True)
        assert await connection.reader.read() == b""

    async def test_body_after_100_is_bounded_and_decoded(self, shared_service: Service) -> None:
        token = await shared_service.sign_up("expecting")
        product = gzip.compress(b'{"name": "Lamp", "price": 1}')
        bodies = {product: 201, b"no gzip": 400, gzip.compress(b" " * 300_000): 413}
        for body, status in bodies.items():
            connection = await shared_service.connect()

            await connection.send(
                b"POST /api/products HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\n"
                b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
                b"Authorization: Bearer %b\r\nTransfer-Encoding: chunked\r\n\r\n" % token.encode()
            )
            assert (await connection.answer()).status == 100
            await connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

            assert (await connection.answer()).status == status

    async def test_compressed_log_in_to_the_console_is_read(self, shared_service: Service) -> None:
        await shared_service.sign_up("expecting_console")
        body = gzip.compress(
            json.dumps({"username": "expecting_console", "password": PASSWORD}).encode()
        )
        connection = await shared_service.connect()

        await connection.send(
            b"POST /console/session HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\n"
            b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
            b"Sec-Fetch-Site: same-origin\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert (await connection.answer()).status == 100
        await connection.send(body)
        answer = await connection.answer()

        assert answer.status == 200, answer.body


class TestSlashesBeforeThePath:
    SPELLINGS = ("//api/products", "///api/products", "/%2fapi/products", "http://a//api/products")

    @pytest.mark.parametrize("path", SPELLINGS)
    @pytest.mark.parametrize("expect", ["Expect: 100-continue\r\n", ""])
    async def test_import_is_read_and_of_any_size(
        self, shared_service: Service, path: str, expect: str
    ) -> None:
        token = await shared_service.sign_up(f"slashes_{uuid4().hex[:8]}")
        connection = await shared_service.connect()
        lines = b'{"name":"Lamp","price":1}\n' * 20_000

        await connection.send(
            f"POST {path}?dry_run=true HTTP/1.1\r\nHost: catalog\r\n{expect}"
            f"Content-Type: application/x-ndjson\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {len(lines)}\r\n\r\n".encode()
        )
        if expect:
            assert (await connection.answer()).status == 100
        await connection.send(lines)
        answer = await connection.answer()

        assert answer.status == 200, answer.body
        assert json.loads(answer.body)["created"] == 20_000

    async def test_error_of_the_api_is_no_page(self, shared_service: Service) -> None:
        connection = await shared_service.connect()

        for path in ("//api/nothing", "/%2fapi/nothing", "//api/a%00b"):
            answer = await connection.get(path, "Accept: text/html")

            assert answer.headers["content-type"] == "application/problem+json"


class TestEmptyLine:
    @pytest.mark.parametrize("path", ["/api/products?limit=3", "/%6civez"])
    async def test_empty_line_before_a_request_is_ignored(
        self, shared_service: Service, path: str
    ) -> None:
        connection = await shared_service.connect()

        for line in (b"\r\n", b""):
            request = f"GET {path} HTTP/1.1\r\nHost: catalog\r\n\r\n".encode()
            await connection.send(line + request)
            assert (await connection.answer()).status == 200
        await connection.send(b"\r\n")
        await asyncio.sleep(0.05)
        assert (await connection.get(path)).status == 200

    REQUEST = b"GET /livez HTTP/1.1\r\nHost: catalog\r\n\r\n"
    WITH_BODY = b"GET /livez HTTP/1.1\r\nHost: catalog\r\nContent-Length: 1\r\n\r\na"

    @pytest.mark.parametrize(
        "pieces",
        [
            [b"\r\n\r\n" + REQUEST],
            [b"\r\n", b"\r\n", REQUEST],
            [b"\r", b"\n" + REQUEST],
            [b"\r\n\r", b"\n", REQUEST],
            [WITH_BODY + b"\r\n" + REQUEST],
            [WITH_BODY + b"\r\n", REQUEST],
            [WITH_BODY + b"\r", b"\n" + REQUEST],
        ],
        ids=lambda pieces: " | ".join(each[-8:].hex() for each in pieces),
    )
    async def test_empty_lines_are_ignored_however_they_are_split(
        self, shared_service: Service, pieces: list[bytes]
    ) -> None:
        connection = await shared_service.connect()

        for piece in pieces:
            await connection.send(piece)
            await asyncio.sleep(0.02)

        for _ in range(b"".join(pieces).count(b"GET")):
            assert (await connection.answer()).status == 200
        await connection.send(self.REQUEST)
        assert (await connection.answer()).status == 200


class TestRefusal:
    @pytest.mark.parametrize("method", ["get", "Get", "dELETE"])
    async def test_method_in_lower_case_is_refused(
        self, shared_service: Service, method: str
    ) -> None:
        connection = await shared_service.connect()

        answer = await connection.ask(method, "/api/products")

        assert (answer.status, answer.closes) == (501, True)

    @pytest.mark.parametrize(
        ("data", "status", "code"),
        [
            (b"GET /a%zz HTTP/1.1", 400, "malformed"),
            (b"GET /a%00b HTTP/1.1", 400, "malformed"),
            (b"GET /a b HTTP/1.1", 400, "malformed"),
            (b"GET livez HTTP/1.1", 400, "malformed"),
            (b"GET ?q=1 HTTP/1.1", 400, "malformed"),
            (b"OPTIONS * HTTP/1.1", 400, "malformed"),
            (b"CONNECT catalog:80 HTTP/1.1", 400, "malformed"),
            (b"GET /livez HTTP/1.1\r\nHost: again", 400, "malformed"),
            (b"\x16\x03\x01\x02\x00\x01", 400, "malformed"),
            (b"GET /" + b"a" * 9000 + b" HTTP/1.1", 414, "uri-too-long"),
            (b"GET /" + b"a" * 70_000, 414, "uri-too-long"),
            (b"GET /livez HTTP/1.1\r\nCookie: " + b"a" * 9000, 431, "headers-too-large"),
            (b"GET /livez HTTP/1.1" + b"\r\nCookie: a" * 70_000, 431, "headers-too-large"),
            (b"GET /livez HTTP/1.1" + b"\r\nCookie: a" * 3000, 431, "headers-too-large"),
            (b"GET /livez HTTP/1.1" + b"\r\na:" * 1000, 431, "headers-too-large"),
            (b"get /livez HTTP/1.1", 501, "not-implemented"),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip", 501, "not-implemented"),
            (b"GET /livez HTTP/2.0", 505, "version-not-supported"),
        ],
        ids=lambda value: value[:30].decode("latin-1") if isinstance(value, bytes) else None,
    )
    async def test_refused_head_gets_a_problem(
        self, shared_service: Service, data: bytes, status: int, code: str
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(data + b"\r\nHost: catalog\r\nX-Request-ID: mine\r\n\r\n")
        answer = await connection.answer()

        problem = json.loads(answer.body)
        assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == problem["request_id"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.closes
        assert await connection.reader.read() == b""

    @pytest.mark.parametrize(
        ("size", "status"), [(20_000, 200), (31_000, 200), (40_000, 431), (60_000, 431)]
    )
    async def test_outcome_for_a_large_head_does_not_depend_on_how_it_is_split(
        self, shared_service: Service, size: int, status: int
    ) -> None:
        fields = b"Cookie: %b\r\n" % (b"a" * 990) * (size // 1000)
        head = b"GET /livez HTTP/1.1\r\nHost: catalog\r\n" + fields + b"\r\n"

        for length in (len(head), 9000):
            connection = await shared_service.connect()
            for start in range(0, len(head), length):
                await connection.send(head[start : start + length])
                # Longer than the service takes to read the piece.
                await asyncio.sleep(0.02)
            assert (await connection.answer()).status == status

    @pytest.mark.parametrize("path", ["/livez", "/api/products"])
    @pytest.mark.parametrize(
        "host", ["Host:", "Host: a b", "Host: a/b", "Host: u@a", "Host: a\r\nHost: a", "X: 1"]
    )
    async def test_invalid_host_is_refused(
        self, shared_service: Service, host: str, path: str
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(f"GET {path} HTTP/1.1\r\n{host}\r\n\r\n".encode())
        answer = await connection.answer()

        assert (answer.status, json.loads(answer.body)["code"]) == (400, "malformed")
        assert answer.closes

    async def test_fields_of_pipelined_requests_do_not_add_up(
        self, shared_service: Service
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(b"GET /livez HTTP/1.1\r\nHost: catalog\r\n\r\n" * 700)

        assert {(await connection.answer()).status for _ in range(700)} == {200}

    async def test_refused_head_request_gets_no_body(self, shared_service: Service) -> None:
        connection = await shared_service.connect()

        await connection.send(b"HEAD /a%zz HTTP/1.1\r\nHost: catalog\r\n\r\n")
        head = await connection.reader.readuntil(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert await connection.reader.read() == b""

    async def test_refusal_reaches_a_client_that_is_still_sending(
        self, shared_service: Service
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(b"GET / HTTP/1.1\r\n" + b"Cookie: a\r\n" * 500_000)
        answer = await connection.answer()

        assert answer.status == 431

    async def test_broken_chunk_is_refused_with_the_id_of_its_request(
        self, shared_service: Service
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(
            b"POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\nX-Request-ID: mine\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"
        )
        answer = await connection.answer()

        assert (answer.status, answer.closes) == (400, True)
        assert json.loads(answer.body)["code"] == "malformed"
        assert answer.headers["x-request-id"] == "mine"

    async def test_connection_is_closed_after_a_refusal_with_data_in_flight(
        self, shared_service: Service
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(
            b"POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5000
        )
        answer = await connection.answer()

        assert (answer.status, answer.closes) == (400, True)
        assert await connection.reader.read() == b""


PLAIN = "/api/products?limit=3"


def telling(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """Return a response without the fields that differ each time."""
    own = {"date", "x-request-id"}
    headers = {name: value for name, value in answer.headers.items() if name not in own}
    return answer.status, headers, answer.body


class TestFastParser:
    """Requests that bypass the general parser; ``/livez`` never does."""

    async def test_head_in_two_pieces_gets_the_same_response(self, shared_service: Service) -> None:
        connection = await shared_service.connect()

        whole = await connection.get(PLAIN)
        await connection.send(f"GET {PLAIN} HTTP/1.1\r\nHo".encode())
        await asyncio.sleep(0.05)
        await connection.send(b"st: catalog\r\n\r\n")
        pieces = await connection.answer()

        assert whole.status == 200
        assert telling(whole) == telling(pieces)
        assert whole.headers.keys() == pieces.headers.keys()

    @pytest.mark.parametrize(
        "body", ['{"name":"Lamp","price":1}', '{"price":-1}', "{", '{"name":"' + "x" * 300_000]
    )
    async def test_body_in_two_pieces_gets_the_same_response(
        self, shared_service: Service, body: str
    ) -> None:
        token = await shared_service.sign_up(f"ada{len(body)}")
        head = (
            "POST /api/products HTTP/1.1\r\nHost: catalog\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        answers = []
        for pause in (0, 0.05):
            connection = await shared_service.connect()
            await connection.send(head.encode() + (b"" if pause else body.encode()))
            if pause:
                await asyncio.sleep(pause)
                await connection.send(body.encode())
            answers.append(await connection.answer())

        one, two = map(telling, answers)
        assert one[0] == two[0] in {201, 400, 413, 422}
        assert one[1].keys() == two[1].keys()
        if one[0] != 201:
            assert json.loads(one[2])["code"] == json.loads(two[2])["code"]

    async def test_both_parsers_alternate_on_one_connection(self, shared_service: Service) -> None:
        connection = await shared_service.connect()
        statuses = []
        for _ in range(3):
            statuses += [
                (await connection.get(PLAIN)).status,
                (await connection.get("/livez")).status,
                (await connection.ask("POST", "/api/products", body={})).status,
                (await connection.get(f"{PLAIN}&sort=wrong")).status,
                (await connection.get(PLAIN, 'If-None-Match: "x"')).status,
            ]

        assert statuses == [200, 200, 401, 422, 200] * 3

    async def test_pipelined_requests_are_answered_in_order(self, shared_service: Service) -> None:
        connection = await shared_service.connect()
        head = "GET /api/products?limit={} HTTP/1.1\r\nHost: catalog\r\nX-Request-ID: {}\r\n\r\n"

        await connection.send("".join(head.format(n, n) for n in range(1, 40)).encode())
        ids = [(await connection.answer()).headers["x-request-id"] for _ in range(1, 40)]

        assert ids == [str(n) for n in range(1, 40)]


class TestEndedConnection:
    @pytest.mark.parametrize("is_direct", [True, False])
    @pytest.mark.parametrize("requests", [0, 2])
    async def test_ended_connection_is_freed_without_the_garbage_collector(
        self, quick: "Quick", monkeypatch: pytest.MonkeyPatch, is_direct: bool, requests: int
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
        self, quick: "Quick", is_quick: bool, in_time: bool
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
        self, quick: "Quick", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.fastpath.http1.REFUSALS_A_SECOND", 20)
        monkeypatch.setattr(PlainH11Protocol, "_refused_until", 0.0)
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
