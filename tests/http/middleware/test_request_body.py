"""Request bodies: hostile JSON, media types, size limits and time-outs."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from quart import Quart

from catalog.products.bulk.formats import IMPORTED
from tests.http.wire import (
    JSON,
    Unanswered,
    app_without_database,
    exchange,
    holder_of_tokens,
)
from tests.support import Caller, fields_of, problem_of

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

    async def test_types_are_named_for_another_charset_too(self, holder: Caller) -> None:
        wrong = {"Content-Type": "application/json; charset=utf-16"}

        login = await holder.send("POST", "/api/auth/login", data=b"{}", headers=wrong)
        patch = await holder.send("PATCH", "/api/products/7", data=b"{}", headers=wrong)
        create = await holder.send("POST", "/api/products", data=b"{}", headers=wrong)
        csv = {"Content-Type": "text/csv; charset=nothing"}
        bulk = await holder.send("POST", "/api/products", data=b"x", headers=csv)

        assert {each.status_code for each in (login, patch, create, bulk)} == {415}
        assert login.headers["Accept-Post"] == "application/json"
        assert patch.headers["Accept-Patch"] == "application/json, application/merge-patch+json"
        both = {create.headers["Accept-Post"], bulk.headers["Accept-Post"]}
        assert both == {", ".join(("application/json", *IMPORTED))}

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
TIMEOUT_SECONDS = 4


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
        async with asyncio.timeout(TIMEOUT_SECONDS):
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

        async with asyncio.timeout(TIMEOUT_SECONDS):
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
