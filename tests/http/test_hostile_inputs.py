"""No input blocks the event loop: the worst shapes of everything that a client can send.

The watchdog measures the longest uninterrupted run of the loop. Inputs are about ten times as long
as accepted, or as long as the limits on bodies and heads allow.
"""

import json
from base64 import urlsafe_b64encode as b64encode
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from quart import Quart

from catalog.auth.models import MAX_PASSWORD
from tests.db.support import on_sqlite
from tests.http.wire import JSON, Header, exchange
from tests.support import PASSWORD, Caller, Response, fields_of, problem_of
from tests.watchdog import MAX_PIECE_SECONDS, Watchdog

# Canonical reordering of these is quadratic if done by insertion. They have two bytes each in
# UTF-8, and so fill a body.
MARKS = "\u0301" * 65_000 + "\u0327" * 65_000
WORST_PASSWORD = "a" + MARKS

UNSAFE = "a" + "\u0301\u0327" * 16
"""Text short enough for a name, with more marks on one letter than any language needs."""


EMPTY = [(b"content-length", b"2")]


async def watched(
    app: Quart,
    method: str,
    path: str,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    body: bytes | None = None,
    limit: float = MAX_PIECE_SECONDS,
) -> Response:
    """Send a request under the watchdog, after a warm-up request to the same route."""
    length = [] if body is None else [(b"content-length", str(len(body)).encode())]
    parts = [] if body is None else [body]
    # The first request of a kind fills caches that later ones use.
    await exchange(app, method, path.partition("?")[0], headers=[JSON, *EMPTY], body=[b"{}"])
    with Watchdog(limit):
        return await exchange(app, method, path, headers=[*(headers or []), *length], body=parts)


async def watched_json(
    caller: Caller, method: str, path: str, body: Any, **headers: str
) -> Response:
    """Send JSON under the watchdog."""
    encoded = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    fields = [(name.lower().replace("_", "-").encode(), v.encode()) for name, v in headers.items()]
    if caller.access_token:
        fields.append((b"authorization", f"Bearer {caller.access_token}".encode()))
    return await watched(caller.app, method, path, headers=[JSON, *fields], body=encoded)


class Case(NamedTuple):
    """Body with one hostile field, and the route that takes it."""

    method: str
    path: str
    field: str
    others: dict[str, Any]

    def body(self, value: str) -> dict[str, Any]:
        return {**self.others, self.field: value}


PASSWORD_FIELDS = [
    Case("POST", "/api/auth/login", "password", {"username": "ada"}),
    Case("POST", "/api/auth/signup", "password", {"username": "eve", "email": "eve@example.com"}),
    Case("POST", "/api/auth/password", "current_password", {"new_password": PASSWORD}),
    Case("POST", "/api/auth/password", "new_password", {"current_password": PASSWORD}),
    Case("DELETE", "/api/auth/me", "password", {}),
]
NAME_FIELDS = [
    Case("POST", "/api/auth/login", "username", {"password": PASSWORD}),
    Case(
        "POST", "/api/auth/signup", "username", {"email": "eve@example.com", "password": PASSWORD}
    ),
    Case("POST", "/api/auth/signup", "email", {"username": "eve", "password": PASSWORD}),
    Case("PATCH", "/api/auth/me", "email", {}),
]
CHOSEN_FIELDS = [
    case
    for case in (*PASSWORD_FIELDS, *NAME_FIELDS)
    if "login" not in case.path and case.field != "current_password"
    if case.method != "DELETE"
]


def ids_of(cases: list[Case]) -> list[str]:
    return [f"{case.path}-{case.field}" for case in cases]


class TestCombiningMarks:
    @pytest.mark.parametrize("case", PASSWORD_FIELDS, ids=ids_of(PASSWORD_FIELDS))
    async def test_password_of_marks_is_measured_before_normalization(
        self, ada: Caller, case: Case
    ) -> None:
        answer = await watched_json(ada, case.method, case.path, case.body(WORST_PASSWORD))

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [f"/{case.field}"]

    @pytest.mark.parametrize("case", NAME_FIELDS, ids=ids_of(NAME_FIELDS))
    async def test_name_of_marks_is_measured_before_case_folding(
        self, ada: Caller, case: Case
    ) -> None:
        answer = await watched_json(ada, case.method, case.path, case.body(WORST_PASSWORD))

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [f"/{case.field}"]

    @pytest.mark.parametrize("case", CHOSEN_FIELDS, ids=ids_of(CHOSEN_FIELDS))
    async def test_more_than_30_marks_in_a_row_are_refused_in_new_values(
        self, ada: Caller, case: Case
    ) -> None:
        value = f"{UNSAFE}@example.com" if case.field == "email" else f"{UNSAFE}bcdefgh"
        answer = await watched_json(ada, case.method, case.path, case.body(value))

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [f"/{case.field}"]
        assert "30 combining marks" in answer.json["errors"][0]["message"]

    async def test_log_in_with_more_than_30_marks_is_a_wrong_password(self, ada: Caller) -> None:
        # Accounts that predate the rule may have such a password and can still log in.
        for name, password in (("ada", UNSAFE), (UNSAFE, PASSWORD)):
            assert problem_of(await ada.log_in(name, password)) == (401, "credentials-wrong")

    async def test_longest_password_may_be_sent_decomposed(self, anyone: Caller) -> None:
        # U+1F82 decomposes into four code points, more than any other.
        decomposed = "\u03b1\u0313\u0300\u0345" * MAX_PASSWORD

        assert (await anyone.sign_up("ada", password=decomposed)).status_code == 201
        assert (await anyone.log_in("ada", "\u1f82" * MAX_PASSWORD)).status_code == 200


class TestProductText:
    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    async def test_description_of_marks_is_stored_unchanged(self, ada: Caller, method: str) -> None:
        path = "/api/products"
        if method == "PATCH":
            path += f"/{(await ada.create_product('Lamp')).json['id']}"
        description = "lamp" + "\u0301" * 8000 + "\u0327" * 8000
        body = {"name": "Lamp", "price": 1.5, "description": description}

        answer = await watched_json(ada, method, path, body)

        assert answer.status_code in {200, 201}
        assert answer.json["description"] == description

    async def test_search_for_marks_is_fast(self, ada: Caller) -> None:
        q = quote("a" + "\u0301" * 99 + "\u0327" * 100)

        assert (await watched(ada.app, "GET", f"/api/products?q={q}")).status_code == 200

    async def test_long_search_is_measured_before_normalization(self, ada: Caller) -> None:
        q = quote("a" + "\u0301" * 1000 + "\u0327" * 1000)

        answer = await watched(ada.app, "GET", f"/api/products?q={q}")

        assert problem_of(answer) == (422, "invalid")


BODY_BYTES = 256 * 1024
"""Limit on a body's size."""


def filled(unit: bytes, *, begin: bytes = b"[", end: bytes = b"]") -> bytes:
    """Return a body of the maximum size: ``unit`` repeated, comma-separated and enclosed."""
    count = (BODY_BYTES - len(begin) - len(end)) // (len(unit) + 1)
    return begin + b",".join([unit] * count) + end


BODIES = {
    "unknown-fields": b"{" + b",".join(b'"%05x":1' % number for number in range(24_000)) + b"}",
    "unknown-fields-escaped": b"{"
    + b",".join(b'"\\u%04x":1' % number for number in range(0x100, 0x5900))
    + b"}",
    "same-field": filled(b'"a":1', begin=b"{", end=b"}"),
    "deep-arrays": b"[" * BODY_BYTES,
    "deep-objects": b'{"a":' * (BODY_BYTES // 5),
    "deep-enough-side-by-side": filled(b"[" * 31 + b"]" * 31),
    "arrays": filled(b"[]"),
    "objects": filled(b"{}"),
    "objects-in-a-field": filled(b"{}", begin=b'{"name":[', end=b"]}"),
    "objects-with-a-field": filled(b'{"a":1}'),
    "objects-and-an-escape": filled(b'{"a":1}', end=b',"\\u00e9"]'),
    "brackets-unseparated": b"[]" * (BODY_BYTES // 2),
    "brackets-mismatched": b"[}" * (BODY_BYTES // 2),
    "brackets-closed": b"]" * BODY_BYTES,
    "brackets-in-strings": filled(b'"["', begin=b"[" * 31, end=b"]" * 31),
    "integers": filled(b"1"),
    "integers-of-4300-digits": filled(b"9" * 4300),
    "integer-of-all-digits": b"9" * BODY_BYTES,
    "price-of-all-digits": b'{"name":"a","price":' + b"1" * (BODY_BYTES - 30) + b"}",
    "price-of-4300-digits": b'{"name":"a","price":' + b"1" * 4300 + b"}",
    "price-of-all-decimals": b'{"price":0.' + b"1" * (BODY_BYTES - 30) + b"}",
    "price-of-all-exponent": b'{"name":"a","price":1e' + b"1" * (BODY_BYTES - 30) + b"}",
    "floats": filled(b"1e1"),
    "floats-of-800-digits": filled(b"9007199254740993." + b"0" * 780 + b"1"),
    "escapes": b'{"name":"' + b"\\u00e9" * (BODY_BYTES // 6 - 5) + b'"}',
    "surrogates": b'{"name":"' + b"\\ud83d\\ude00" * (BODY_BYTES // 12 - 5) + b'"}',
    "lone-surrogates": b'{"name":"' + b"\\ud83d" * (BODY_BYTES // 6 - 5) + b'"}',
    "backslashes": b'"' + b"\\" * (BODY_BYTES - 1),
    "unclosed-string": b'{"name":"' + b"a" * (BODY_BYTES - 20),
    "unclosed-escapes": b"[" * 40 + b'"' + b'\\"' * (BODY_BYTES // 2 - 30),
    "quotes": b"[" * 40 + b'"' * (BODY_BYTES - 40),
    "empty-strings": filled(b'""', begin=b"[" + b"[]," * 40),
    "spaces": b" " * BODY_BYTES,
    "line-breaks": b"\n" * (BODY_BYTES - 1) + b"x",
    "name-of-all-characters": b'{"price":1,"name":"' + b"a" * (BODY_BYTES - 40) + b'"}',
    "blank-name": b'{"price":1,"name":"' + "\u3000".encode() * (BODY_BYTES // 3 - 40) + b'"}',
    "long-field-name": b'{"' + b"~/" * (BODY_BYTES // 2 - 10) + b'":1}',
    "ten-times-too-large": b"[" * (10 * BODY_BYTES),
}


@on_sqlite
class TestJson:
    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
    async def test_hostile_body_is_refused_quickly(self, ada: Caller, body: bytes) -> None:
        answer = await watched_json(ada, "POST", "/api/products", body)

        status, _ = problem_of(answer)
        assert status in {400, 413, 422}
        assert len(answer.body) < 64 * 1024

    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
    async def test_hostile_body_is_refused_quickly_without_an_account(
        self, anyone: Caller, body: bytes
    ) -> None:
        answer = await watched_json(anyone, "POST", "/api/auth/login", body)

        status, _ = problem_of(answer)
        assert status in {400, 413, 422}

    async def test_first_100_of_many_errors_are_reported(self, ada: Caller) -> None:
        fields = {f"field{number}": 1 for number in range(10_000)}

        answer = await watched_json(ada, "POST", "/api/products", {**fields, "price": -1})

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer)[:4] == ["/name", "/price", "/field0", "/field1"]
        assert len(fields_of(answer)) == 100


LONG = 80_000
"""Bytes of a header field: ten times the server's limit."""

HEAD_SECONDS = 0.2
"""Limit for a head of that length; a head within the server's limit has a tenth of it."""

QUERIES = {
    "one-parameter-many-times": "&".join(["limit=1"] * 12_000),
    "many-parameters": "&".join(f"p{number:x}=1" for number in range(10_000)),
    "many-parameters-without-values": "&" * LONG,
    "many-signs": "=" * LONG,
    "many-percent-signs": "q=" + "%" * LONG,
    "escapes": "q=" + "%C3%A9" * (LONG // 6),
    "escapes-of-no-text": "q=" + "%FF" * (LONG // 3),
    "escapes-of-marks": "q=" + "%CC%81%CC%A7" * (LONG // 12),
    "plus-signs": "q=" + "+" * LONG,
    "ids": "ids=" + "1," * (LONG // 2),
    "ids-many-times": "&".join(["ids=1"] * 13_000),
    "fields": "fields=" + "id," * (LONG // 3),
    "number-of-digits": "min_price=" + "1" * LONG,
    "number-of-decimals": "min_price=1." + "1" * LONG,
    "limit-of-digits": "limit=" + "1" * LONG,
    "cursor": "cursor=" + "A" * LONG,
    "cursor-of-the-longest-length": "cursor=" + "A" * 4200,
    "cursor-of-signs": "cursor=" + "=" * 4200,
    "long-name": "x" * LONG + "=1",
    "sort": "sort=" + "-" * LONG,
    "brackets": "q[" * (LONG // 2),
}

HEADERS: dict[str, tuple[bytes, bytes]] = {
    "accept-many-types": (b"accept", b"a/b," * (LONG // 4)),
    "accept-many-wildcards": (b"accept", b"*/*;q=0.1," * (LONG // 10)),
    "accept-many-parameters": (b"accept", b"a/b" + b";c=d" * (LONG // 4)),
    "accept-quoted": (b"accept", b'a/b;c="' + b'\\"' * (LONG // 2)),
    "accept-commas": (b"accept", b"," * LONG),
    "accept-semicolons": (b"accept", b";" * LONG),
    "accept-spaces": (b"accept", b"a/b;q" + b" " * LONG + b"x"),
    "accept-digits": (b"accept", b"a/b;q=0." + b"1" * LONG),
    "if-none-match-many-tags": (b"if-none-match", b'"a",' * (LONG // 4)),
    "if-none-match-unclosed": (b"if-none-match", b'W/"' * (LONG // 3)),
    "if-none-match-quotes": (b"if-none-match", b'"' * LONG),
    "if-none-match-spaces": (b"if-none-match", b'"a"' + b" " * LONG + b"x"),
    "if-none-match-commas": (b"if-none-match", b"," * LONG),
    "if-match-many-tags": (b"if-match", b'W/"a", ' * (LONG // 7)),
    "if-match-spaces": (b"if-match", b'"a"' + b" " * LONG + b"x"),
    "authorization-one-word": (b"authorization", b"B" * LONG),
    "authorization-spaces": (b"authorization", b"Bearer" + b" " * LONG + b"x"),
    "authorization-long-token": (b"authorization", b"Bearer " + b"A" * LONG),
    "authorization-many-dots": (b"authorization", b"Bearer " + b"." * LONG),
    "authorization-long-parts": (
        b"authorization",
        b"Bearer " + b".".join([b64encode(b'{"alg":"HS256","kid":"' + b"a" * 20_000 + b'"}')] * 3),
    ),
    "authorization-deep-header": (
        b"authorization",
        b"Bearer " + b64encode(b"[" * 45_000) + b".e30.AAAA",
    ),
    "authorization-wide-header": (
        b"authorization",
        b"Bearer " + b64encode(b"{" + b'"a":1,' * 9000 + b'"b":1}') + b".e30.AAAA",
    ),
    "authorization-basic": (b"authorization", b"Basic " + b64encode(b":" * 45_000)),
    "idempotency-key": (b"idempotency-key", b"a" * LONG),
    "idempotency-key-quotes": (b"idempotency-key", b'"' + b'\\"' * (LONG // 2)),
    "content-type-parameters": (b"content-type", b"application/json" + b";a=b" * (LONG // 4)),
    "content-type-semicolons": (b"content-type", b"application/json" + b";" * LONG),
    "content-type-quoted": (b"content-type", b'application/json;charset="' + b'\\"' * (LONG // 2)),
    "content-type-continued": (
        b"content-type",
        b"application/json" + b";".join(b"charset*%d=a" % number for number in range(6000)),
    ),
    "content-type-spaces": (b"content-type", b"application/json;" + b" " * LONG + b"="),
    "content-type-multipart": (b"content-type", b"multipart/form-data;boundary=" + b"a" * LONG),
    "last-event-id": (b"last-event-id", b"1" * LONG),
    "traceparent": (b"traceparent", b"01-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-" + b"-" * LONG),
    "x-forwarded-for": (b"x-forwarded-for", b"192.0.2.1," * (LONG // 10)),
    "x-forwarded-for-commas": (b"x-forwarded-for", b"," * LONG),
    "x-forwarded-for-colons": (b"x-forwarded-for", b":" * LONG),
    "x-request-id": (b"x-request-id", b"a" * LONG),
    "user-agent": (b"user-agent", b"\xff" * LONG),
    "cookie-many": (b"cookie", b"a=b;" * (LONG // 4)),
    "cookie-quotes": (b"cookie", b'a="' + b"\\" * LONG),
    "cookie-spaces": (b"cookie", b"a" + b" " * LONG + b"b"),
    "accept-language": (b"accept-language", b"en;q=0.1," * (LONG // 9)),
    "accept-encoding": (b"accept-encoding", b"gzip;q=0.1," * (LONG // 11)),
    "cache-control": (b"cache-control", b"no-cache," * (LONG // 9)),
    "range": (b"range", b"bytes=" + b"0-1," * (LONG // 4)),
    "origin": (b"origin", b"https://" + b"a." * (LONG // 2)),
    "host": (b"host", b"a." * (LONG // 2)),
    "content-length": (b"content-length", b"1" * LONG),
}

ASKED = [
    ("GET", "/api/products"),
    ("GET", "/api/products/1"),
    ("GET", "/api/products/changes"),
    ("GET", "/api/auth/me"),
    ("GET", "/"),
    ("POST", "/api/products"),
    ("POST", "/api/auth/login"),
]

PATHS = {
    "digits": "/api/products/" + "1" * LONG,
    "segments": "/api" + "/products" * (LONG // 9),
    "slashes": "/" * LONG,
    "trailing-slashes": "/api/products" + "/" * LONG,
    "escapes": "/api/products/" + "%2F" * (LONG // 3),
    "dots": "/api/" + "../" * (LONG // 3),
    "problems": "/problems/" + "a" * LONG,
    "outside": "/" + "a-" * (LONG // 2),
}


@on_sqlite
class TestHead:
    @pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
    async def test_hostile_query_is_handled_quickly(self, anyone: Caller, query: str) -> None:
        for path in ("/api/products", "/api/products/changes"):
            answer = await watched(anyone.app, "GET", f"{path}?{query}", limit=HEAD_SECONDS)

            assert answer.status_code < 500
            assert len(answer.body) < 64 * 1024

    # All routes in one test: starting the app takes longer than the requests.
    @pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
    async def test_hostile_header_is_handled_quickly(self, anyone: Caller, header: Header) -> None:
        for method, path in ASKED:
            body = b"{}" if method == "POST" else None
            headers = [header]
            if body is not None and header[0] != b"content-type":
                headers.append(JSON)

            answer = await watched(
                anyone.app, method, path, headers=headers, body=body, limit=HEAD_SECONDS
            )

            assert answer.status_code < 500, (method, path)

    @pytest.mark.parametrize("name", [b"accept", b"x-forwarded-for", b"if-none-match", b"x-a"])
    async def test_many_headers_are_handled_quickly(self, anyone: Caller, name: bytes) -> None:
        headers = [(name, b"a/b;q=0.5")] * 10_000

        answer = await watched(
            anyone.app, "GET", "/api/products", headers=headers, limit=HEAD_SECONDS
        )

        assert answer.status_code < 500

    @pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
    async def test_hostile_path_is_handled_quickly(self, anyone: Caller, path: str) -> None:
        answer = await watched(anyone.app, "GET", path, limit=HEAD_SECONDS)

        assert answer.status_code in {404, 200}
        assert len(answer.body) < 64 * 1024
