"""A request for each kind of response, for tests of what all responses share."""

from typing import NamedTuple

import pytest
from quart import Quart

from tests.http.wire import JSON, Header, exchange
from tests.support import Response


class Kind(NamedTuple):
    """A request and the status of its response."""

    status: int
    method: str
    path: str
    headers: tuple[Header, ...] = ()
    body: bytes = b""


KINDS = {
    "200": Kind(200, "GET", "/livez"),
    "200-to-head": Kind(200, "HEAD", "/livez"),
    "204": Kind(204, "OPTIONS", "/api/products"),
    "400": Kind(400, "POST", "/api/auth/login", (JSON,), b"{"),
    "400-outside-the-framework": Kind(
        400, "POST", "/", ((b"transfer-encoding", b"chunked"), (b"content-length", b"0"))
    ),
    "401": Kind(401, "POST", "/api/products"),
    "404": Kind(404, "GET", "/nowhere"),
    "405": Kind(405, "DELETE", "/livez"),
    "406": Kind(406, "GET", "/api/products", ((b"accept", b"text/html"),)),
    "413": Kind(413, "POST", "/api/auth/login", (JSON, (b"content-length", b"999999999"))),
    "415": Kind(415, "POST", "/api/auth/login", (), b"{}"),
    "422": Kind(422, "POST", "/api/auth/login", (JSON,), b"{}"),
    "500": Kind(500, "GET", "/unforeseen"),
    "503": Kind(503, "GET", "/readyz"),
    "page": Kind(200, "GET", "/sign-in"),
    "documentation": Kind(200, "GET", "/docs"),
    "asset": Kind(200, "GET", "/docs/docs.js"),
    "script": Kind(200, "GET", "/docs/swagger-ui-bundle.js"),
    "openapi": Kind(200, "GET", "/openapi.json"),
    "problem": Kind(200, "GET", "/problems/not-found"),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


async def ask(app: Quart, kind: Kind, *more: Header) -> Response:
    answer = await exchange(
        app, kind.method, kind.path, headers=[*kind.headers, *more], body=[kind.body]
    )
    assert answer.status_code == kind.status
    return answer
