"""HTTP/1.1 extensions are refused, so that none bypasses a proxy's rules."""

import asyncio
import json
from uuid import uuid4

import pytest

from tests.server.service import Answer, Service


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
        # The service has to read the line on its own, which a client cannot observe.
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

    @pytest.mark.parametrize(("count", "status"), [(900, 401), (30_000, 400)])
    async def test_trailers_are_ignored_up_to_the_number_of_fields(
        self, shared_service: Service, count: int, status: int
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(
            b"POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            b'26\r\n{"username":"unknown","password":"no"}\r\n0\r\n' + b"a:\r\n" * count + b"\r\n"
        )
        answer = await connection.answer()

        assert (answer.status, answer.closes) == (status, status == 400)

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
        # The service has to read the piece on its own, which a client cannot observe.
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
