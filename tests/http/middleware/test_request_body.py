"""Request bodies: hostile JSON, media types, size limits and time-outs."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from quart import Quart

from catalog.http.middleware.request_body import BoundedBodies
from catalog.http.request import current_request
from catalog.products.bulk.formats import IMPORTED
from tests.http.wire import (
    JSON,
    Unanswered,
    app_without_database,
    exchange,
    holder_of_tokens,
)
from tests.support import Caller, fields_of, handling, problem_of

# A valid body for each route; tests replace one field of it.
VALID: dict[str, dict[str, object]] = {
    "/api/auth/signup": {"username": "ada", "email": "ada@example.com", "password": "long enough"},
    "/api/auth/login": {"username": "ada", "password": "long enough"},
    "/api/products": {"name": "Lamp", "price": 9.5},
}
PATHS = list(VALID)


def nested(depth: int, *, innermost: bytes = b"") -> bytes:
    return b"[" * depth + innermost + b"]" * depth


def product(price: str) -> bytes:
    return b'{"name": "Lamp", "price": ' + price.encode() + b"}"


def texts(path: str) -> list[str]:
    """Return the names of the text fields of a route's body."""
    return [name for name, value in VALID[path].items() if isinstance(value, str)]


MALFORMED = {
    "nothing": b"",
    "white-space": b" \r\n\t",
    "invalid-utf-8": b'{"name": "\xff"}',
    "overlong-utf-8": b'{"name": "\xc0\x80"}',
    "surrogate-in-utf-8": b'{"name": "\xed\xa0\x80"}',
    "utf-16": '{"name": "Lamp"}'.encode("utf-16"),
    "utf-16-without-bom": '{"name": "Lamp"}'.encode("utf-16-le"),
    "utf-32": '{"name": "Lamp"}'.encode("utf-32-le"),
    "byte-order-mark-alone": b"\xef\xbb\xbf",
    "two-byte-order-marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "byte-order-mark-within": b'{\xef\xbb\xbf"name": "Lamp"}',
    "raw-nul": b'{"name": "\x00"}',
    "nul-behind-it": b"{}\x00",
    "raw-newline-in-text": b'{"name": "a\nb"}',
    "nan": product("NaN"),
    "infinity": product("Infinity"),
    "minus-infinity": product("-Infinity"),
    "beyond-a-double": product("1e400"),
    "minus-beyond-a-double": product("-1e400"),
    "beyond-a-double-in-an-unknown-field": b'{"unknown": {"deep": [1e400]}}',
    "5000-digits": product("9" * 5000),
    "hexadecimal": product("0x10"),
    "leading-zero": product("01"),
    "plus-sign": product("+1"),
    "bare-point": product("1."),
    "same-name-twice": b'{"name": "Lamp", "price": 1, "price": 2}',
    "same-name-twice-in-an-array": b'{"name": [{"a": 1, "a": 1}]}',
    "same-name-twice-deep": b'{"name": {"deep": {"a": 1, "a": 1}}}',
    "same-name-in-two-spellings": b'{"name": "Lamp", "\\u006eame": "Desk"}',
    "33-arrays": nested(33, innermost=b"1"),
    "33-arrays-of-nothing": nested(33),
    "33-objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "33-objects-of-nothing": b'{"a":' * 32 + b"{}" + b"}" * 32,
    "900-arrays": nested(900),
    "100000-arrays": nested(100_000),
    "100000-arrays-left-open": b"[" * 100_000,
    "40000-objects-left-open": b'{"a":' * 40_000,
    "single-quotes": b"{'name': 'Lamp'}",
    "high-surrogate": rb'{"name": "a\ud800"}',
    "low-surrogate": rb'{"name": "\udfffa"}',
    "swapped-surrogates": rb'{"name": "\udc00\ud800"}',
    "surrogate-in-a-name": rb'{"\ud800": 1}',
    "surrogate-in-an-unknown-field": rb'{"unknown": [{"deep": "\uDBFF"}]}',
    "trailing-comma": b'{"name": "Lamp",}',
    "comment": b'{"name": "Lamp"} // ours',
    "two-values": b"{} {}",
    "cut-off": b'{"name": "La',
    "form": b"name=Lamp&price=1",
}

NOT_AN_OBJECT = {
    "null": b"null",
    "array": b"[]",
    "text": b'"x"',
    "number": b"0",
    "true": b"true",
    "32-arrays": nested(32),
    "array-of-objects": b"[{}]",
}


async def send(caller: Caller, path: str, body: bytes, media_type: str = "application/json") -> Any:
    return await caller.post(path, data=body, headers={"Content-Type": media_type})


class TestMalformedJson:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
    async def test_malformed_json_is_refused(self, holder: Caller, path: str, body: bytes) -> None:
        assert problem_of(await send(holder, path, body)) == (400, "malformed")

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("body", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
    async def test_json_that_is_not_an_object_is_invalid(
        self, holder: Caller, path: str, body: bytes
    ) -> None:
        answer = await send(holder, path, body)

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [""]
        message = answer.json["errors"][0]["message"]
        assert message.startswith("The body must be a JSON object")
        assert ("application/x-ndjson" in message) == (path == "/api/products")

    async def test_error_does_not_echo_the_body(self, holder: Caller) -> None:
        answer = await send(holder, "/api/auth/login", b'{"password": "s3cret-and-long"')

        assert problem_of(answer) == (400, "malformed")
        assert b"s3cret" not in answer.body

    async def test_refresh_body_is_parsed_as_strictly(self, holder: Caller) -> None:
        for body in (b"{", b'{"a": 1, "a": 1}', nested(33), b"\xff"):
            answer = await holder.post(
                "/api/auth/refresh",
                data=body,
                token=holder.refresh_token,
                headers={"Content-Type": "application/json"},
            )

            assert problem_of(answer) == (400, "malformed")


class TestByteOrderMark:
    @pytest.mark.parametrize("path", PATHS)
    async def test_byte_order_mark_before_json_is_skipped(self, holder: Caller, path: str) -> None:
        answer = await send(holder, path, b'\xef\xbb\xbf{"\xef\xbb\xbf": 1}')

        assert problem_of(answer) == (422, "invalid")
        assert "/\ufeff" in fields_of(answer)


class TestFields:
    @pytest.mark.parametrize("path", PATHS)
    async def test_unknown_field_is_reported(self, holder: Caller, path: str) -> None:
        answer = await holder.post(path, json={**VALID[path], "is_admin": True})

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["/is_admin"]
        assert answer.json["errors"][0]["message"].endswith(" is not a known field.")

    @pytest.mark.parametrize(
        ("name", "pointer"),
        [("", "/"), ("a/b", "/a~1b"), ("a~b", "/a~0b"), ("naïve", "/naïve"), ("\0", "/\0")],
        ids=["empty", "slash", "tilde", "not-ascii", "nul"],
    )
    async def test_unknown_field_is_reported_as_a_json_pointer(
        self, holder: Caller, name: str, pointer: str
    ) -> None:
        answer = await holder.post("/api/products", json={**VALID["/api/products"], name: 1})

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [pointer]

    @pytest.mark.parametrize("path", PATHS)
    async def test_missing_field_is_reported(self, holder: Caller, path: str) -> None:
        for name in VALID[path]:
            rest = {key: value for key, value in VALID[path].items() if key != name}

            answer = await holder.post(path, json=rest)

            assert problem_of(answer) == (422, "invalid")
            assert fields_of(answer) == [f"/{name}"]

    @pytest.mark.parametrize("path", PATHS)
    async def test_all_errors_are_reported_together(self, holder: Caller, path: str) -> None:
        answer = await holder.post(path, json={})

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [f"/{name}" for name in VALID[path]]

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize(
        "value", [None, 5, True, [], {}, ["x"]], ids=["null", "5", "true", "[]", "{}", "[x]"]
    )
    async def test_text_field_rejects_other_types(
        self, holder: Caller, path: str, value: object
    ) -> None:
        for name in texts(path):
            answer = await holder.post(path, json={**VALID[path], name: value})

            assert problem_of(answer) == (422, "invalid")
            assert fields_of(answer) == [f"/{name}"]

    @pytest.mark.parametrize("path", PATHS)
    async def test_text_field_rejects_nul(self, holder: Caller, path: str) -> None:
        for name in texts(path):
            answer = await holder.post(path, json={**VALID[path], name: "long\0enough"})

            assert problem_of(answer) == (422, "invalid")
            assert fields_of(answer) == [f"/{name}"]

    @pytest.mark.parametrize(
        "price",
        ['"5"', "true", "null", "[]", "{}", "-1", "-1e-300", "1e13", "1e308", "1000000000001"],
    )
    async def test_price_must_be_a_number_in_range(self, holder: Caller, price: str) -> None:
        answer = await send(holder, "/api/products", product(price))

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["/price"]

    @pytest.mark.parametrize("price", [2**63, 2**64, 10**400], ids=["2**63", "2**64", "10**400"])
    async def test_huge_price_is_invalid_and_not_a_server_error(
        self, holder: Caller, price: int
    ) -> None:
        answer = await send(holder, "/api/products", product(str(price)))

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["/price"]

    async def test_first_100_of_many_errors_are_reported(self, holder: Caller) -> None:
        body = {f"k{number}": number for number in range(15_000)}

        answer = await holder.post("/api/products", json=body)

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer)[:3] == ["/name", "/price", "/k0"]
        assert len(fields_of(answer)) == 100


class TestMediaType:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize(
        "media_type",
        [
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "application/jsonp",
            "application/merge-patch+json",
            "application/problem+json",
            "application/json, text/plain",
            "json",
            "*/*",
            "",
        ],
    )
    async def test_other_media_type_is_refused(
        self, holder: Caller, path: str, media_type: str
    ) -> None:
        body = json.dumps(VALID[path]).encode()

        answer = await send(holder, path, body, media_type)

        assert problem_of(answer) == (415, "unsupported-media-type")
        # Names every type that the route takes.
        taken = answer.headers["Accept-Post"].split(", ")
        assert taken == ["application/json", *(IMPORTED if path == "/api/products" else ())]
        assert all(each in answer.json["detail"] for each in taken)

    @pytest.mark.parametrize("path", ["/api/products/7", "/api/auth/me"])
    async def test_patch_takes_merge_patches_too(self, holder: Caller, path: str) -> None:
        headers = {"Content-Type": "application/merge-patch+json; charset=utf-8"}

        taken = await holder.send("PATCH", path, data=b'{"x": 1}', headers=headers)
        headers = {"Content-Type": "application/json-patch+json"}
        refused = await holder.send("PATCH", path, data=b"[]", headers=headers)

        assert problem_of(taken) == (422, "invalid")
        assert problem_of(refused) == (415, "unsupported-media-type")
        assert refused.headers["Accept-Patch"] == "application/json, application/merge-patch+json"
        assert "application/json or application/merge-patch+json" in refused.json["detail"]

    @pytest.mark.parametrize("path", PATHS)
    async def test_missing_media_type_is_refused(self, holder: Caller, path: str) -> None:
        answer = await holder.post(path, data=json.dumps(VALID[path]))

        assert problem_of(answer) == (415, "unsupported-media-type")

    @pytest.mark.parametrize(
        "media_type",
        [
            "application/json",
            "application/json; charset=utf-8",
            'application/json;charset="UTF-8"',
            "application/json; charset=utf8",
            'application/json; charset="Utf8"',
            "application/json ; charset=US-ASCII",
            "Application/JSON",
            "application/json; indent=2",
        ],
    )
    async def test_json_in_utf_8_is_accepted(self, holder: Caller, media_type: str) -> None:
        answer = await send(holder, "/api/products", b"{}", media_type)

        assert problem_of(answer) == (422, "invalid")

    @pytest.mark.parametrize("charset", ["latin-1", "utf-16", "utf-8-sig", "utf-8 ", ""])
    async def test_json_in_another_charset_is_refused(self, holder: Caller, charset: str) -> None:
        media_type = f'application/json; charset="{charset}"'

        answer = await send(holder, "/api/products", b"{}", media_type)

        assert problem_of(answer) == (415, "unsupported-media-type")
        assert "UTF-8" in answer.json["detail"]

    async def test_media_type_is_checked_after_authentication(self, stranger: Caller) -> None:
        answer = await send(stranger, "/api/products", b"\xff", "text/plain")

        assert problem_of(answer) == (401, "token-missing")


class TestSize:
    LIMIT = 2048

    @pytest.fixture
    async def small(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Caller:
        monkeypatch.setattr("catalog.app.MAX_BODY_BYTES", self.LIMIT)
        app = app_without_database(tmp_path)
        return await holder_of_tokens(app)

    @staticmethod
    def padded(size: int) -> bytes:
        """Return JSON of ``size`` bytes that no route accepts."""
        return b'{"pad": "' + b"x" * (size - 11) + b'"}'

    def length(self, size: int) -> tuple[bytes, bytes]:
        return b"content-length", str(size).encode()

    CHUNKED = (b"transfer-encoding", b"chunked")

    @pytest.mark.parametrize("path", ["/api/auth/signup", "/api/auth/login"])
    async def test_body_of_exactly_the_limit_is_accepted(self, small: Caller, path: str) -> None:
        body = self.padded(self.LIMIT)
        assert len(body) == self.LIMIT

        announced = await exchange(
            small.app, "POST", path, headers=[JSON, self.length(len(body))], body=[body]
        )
        chunked = await exchange(
            small.app, "POST", path, headers=[JSON, self.CHUNKED], body=[body[:99], body[99:]]
        )

        for answer in (announced, chunked):
            assert problem_of(answer) == (422, "invalid")
            assert "/pad" in fields_of(answer)

    @pytest.mark.parametrize("path", ["/api/auth/signup", "/nowhere", "/"])
    async def test_body_one_byte_over_the_limit_is_too_large(
        self, small: Caller, path: str
    ) -> None:
        body = self.padded(self.LIMIT + 1)

        answer = await exchange(
            small.app, "POST", path, headers=[JSON, self.length(len(body))], body=[body]
        )

        assert problem_of(answer) == (413, "body-too-large")
        assert answer.headers["Connection"] == "close"

    async def test_chunked_body_one_byte_over_the_limit_is_too_large(self, small: Caller) -> None:
        body = self.padded(self.LIMIT + 1)
        chunks = [body[:1000], body[1000:]]

        answer = await exchange(
            small.app, "POST", "/api/auth/login", headers=[JSON, self.CHUNKED], body=chunks
        )

        assert problem_of(answer) == (413, "body-too-large")

    async def test_endless_body_is_refused_before_its_end(self, small: Caller) -> None:
        chunks = [b"x" * 1024] * 10

        answer = await exchange(
            small.app,
            "POST",
            "/api/auth/login",
            headers=[JSON, self.CHUNKED],
            body=chunks,
            then="hangs up",
        )

        assert problem_of(answer) == (413, "body-too-large")

    async def test_excessive_content_length_is_refused_before_the_body_arrives(
        self, small: Caller
    ) -> None:
        answer = await exchange(
            small.app,
            "POST",
            "/api/auth/login",
            headers=[JSON, self.length(10**15)],
            then="hangs up",
        )

        assert problem_of(answer) == (413, "body-too-large")

    async def test_content_length_of_5000_digits_is_too_large(self, small: Caller) -> None:
        headers = [JSON, (b"content-length", b"9" * 5000)]

        answer = await exchange(
            small.app, "POST", "/api/auth/login", headers=headers, then="hangs up"
        )

        assert problem_of(answer) == (413, "body-too-large")

    @pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
    async def test_size_is_limited_where_no_body_is_expected(
        self, small: Caller, method: str
    ) -> None:
        chunks = [self.padded(self.LIMIT), b" "]

        answer = await exchange(small.app, method, "/livez", headers=[self.CHUNKED], body=chunks)

        assert problem_of(answer) == (413, "body-too-large")

    @pytest.mark.parametrize("order", [1, -1], ids=["length-first", "chunked-first"])
    async def test_content_length_with_chunked_encoding_is_refused(
        self, small: Caller, order: int
    ) -> None:
        headers = [JSON, *[self.length(2), self.CHUNKED][::order]]

        answer = await exchange(small.app, "POST", "/api/auth/login", headers=headers, body=[b"{}"])

        assert problem_of(answer) == (400, "malformed")
        assert answer.headers["Connection"] == "close"

    async def test_limit_is_256_kib_by_default(self, bare_app: Quart) -> None:
        answers = []
        for size in (256 * 1024, 256 * 1024 + 1):
            headers = [JSON, self.length(size)]
            body = [self.padded(size)]
            answers.append(
                await exchange(bare_app, "POST", "/api/auth/login", headers=headers, body=body)
            )

        assert [answer.status_code for answer in answers] == [422, 413]


# Far longer than the body time-out of these tests, and shorter than the default.
PATIENCE_SECONDS = 4


class TestTime:
    @pytest.fixture
    def hasty_app(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quart:
        """Return an app with a body time-out of 50 ms."""
        monkeypatch.setattr("catalog.app.BODY_SECONDS", 0.05)
        return app_without_database(tmp_path)

    @pytest.mark.parametrize(
        "framing",
        [(b"content-length", b"20"), (b"transfer-encoding", b"chunked")],
        ids=["length", "chunked"],
    )
    @pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
    async def test_stalled_body_times_out(
        self, hasty_app: Quart, path: str, framing: tuple[bytes, bytes]
    ) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await exchange(
                hasty_app,
                "POST",
                path,
                headers=[JSON, framing],
                body=[b'{"name": '],
                then="stalls",
            )

        assert problem_of(answer) == (408, "request-timeout")
        assert answer.headers["Connection"] == "close"

    async def test_trickling_body_times_out(self, hasty_app: Quart) -> None:
        async def receive() -> Any:
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"", "more_body": True}

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope: Any = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/api/auth/login",
            "query_string": b"",
            "headers": [JSON, (b"transfer-encoding", b"chunked")],
            "client": None,
        }

        async with asyncio.timeout(PATIENCE_SECONDS):
            await hasty_app.asgi_app(scope, receive, send)

        assert sent[0]["status"] == 408

    @pytest.mark.parametrize("path", ["/api/auth/login", "/livez"])
    async def test_aborted_body_is_not_handled(self, bare_app: Quart, path: str) -> None:
        # Valid JSON so far, but the request is incomplete.
        with pytest.raises(Unanswered):
            await exchange(
                bare_app,
                "POST",
                path,
                headers=[JSON, (b"transfer-encoding", b"chunked")],
                body=[b"{}"],
                then="hangs up",
            )


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
            app, max_bytes=10, timeout=PATIENCE_SECONDS, max_waiting=8, streamed=streamed
        )
        arriving = asyncio.create_task(self._receive_from_client())
        async with asyncio.timeout(PATIENCE_SECONDS):
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
            app, max_bytes=10, timeout=PATIENCE_SECONDS, max_waiting=2, streamed={}
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
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
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
