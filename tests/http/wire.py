"""Requests as raw ASGI events, including those that no well-behaved client sends."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pytest
from quart import Quart
from sqlalchemy import URL
from werkzeug.datastructures import Headers

from catalog.app import create_app
from catalog.auth.models import Role
from catalog.auth.tokens.jwt import issue_access_token, issue_refresh_token
from catalog.db.columns import now
from catalog.http.context import app_state
from catalog.settings import Settings
from tests.engines import settings_for
from tests.support import Caller, Response

JSON = (b"content-type", b"application/json")

Header = tuple[bytes, bytes]


class Unanswered(Exception):
    """The app returned without a response, as it should after the client has disconnected."""


def app_without_database(folder: Path, **overrides: Any) -> Quart:
    """Return an app whose database is unreachable: requests that read a row get 503.

    For tests of requests that are decided before any row is read.
    """
    url = URL.create("sqlite+aiosqlite", database=str(folder / "missing" / "catalog.db"))
    return create_app(settings_for(url, **{"access_log": "off", **overrides}))


@cache
def app_to_read() -> Quart:
    """Return an app for parametrizing tests by its routes and document; read-only.

    Clears the developer's settings, since collection runs before the fixture that does so.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(f"CATALOG_{name.upper()}", raising=False)
        return app_without_database(Path("/nonexistent"))


async def tokens_of(app: Quart, user_id: int = 1, session_id: int = 1) -> dict[str, Any]:
    """Return valid tokens of an account and a session that need not exist."""
    ttl = app_state(app).settings.refresh_token_ttl
    async with app.app_context():
        return {
            "id": user_id,
            "access_token": issue_access_token(
                user_id, session_id=session_id, role=Role.USER, session_expires_at=now() + ttl
            ),
            "refresh_token": issue_refresh_token(
                user_id,
                session_id=session_id,
                token_id=uuid4().hex,
                issued_at=now(),
                expires_at=now() + ttl,
            ),
        }


async def holder_of_tokens(app: Quart, user_id: int = 1) -> Caller:
    """Return a caller with valid tokens of an account that need not exist."""
    return Caller(app, await tokens_of(app, user_id))


async def exchange(
    app: Quart,
    method: str,
    path: str,
    *,
    headers: Iterable[Header] = (),
    body: Sequence[bytes] = (),
    then: Literal["end", "stalls", "hangs up"] = "end",
    client: tuple[str, int] | None = ("192.0.2.1", 50000),
    scheme: str = "http",
    on_send: Callable[[Any], None] = lambda _: None,
) -> Response:
    """Send one request as given, without the headers that a client would add.

    Args:
        app: the app under test.
        method: the method.
        path: the path, with its query string.
        headers: names in lower case, and values.
        body: the body's parts as they arrive.
        then: after them, the request may ``end``, or the client ``stalls`` or ``hangs up``, that
            is, disconnects.
        client: the peer's address.
        scheme: of the connection to the peer.
        on_send: called with each event of the response as it is sent.

    Raises:
        Unanswered: the app sent no response.
    """
    path, _, query = path.partition("?")
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": list(headers),
        "client": client,
        "server": ("testserver", 80),
        "extensions": {},
    }
    events: list[Any] = [{"type": "http.request", "body": p, "more_body": True} for p in body]
    if then == "end":
        events.append({"type": "http.request", "body": b"", "more_body": False})
    elif then == "hangs up":
        events.append({"type": "http.disconnect"})
    sent: list[Any] = []
    answered = asyncio.Event()

    async def receive() -> Any:
        if events:
            return events.pop(0)
        # As servers do: Quart 0.23 waits for it before it releases the request.
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        on_send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            answered.set()

    await app.asgi_app(scope, receive, send)
    if not sent:
        raise Unanswered
    return _response(sent)


def _response(sent: list[Any]) -> Response:
    start, *parts = sent
    assert start["type"] == "http.response.start"
    assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [False]
    headers = Headers([(n.decode("latin-1"), v.decode("latin-1")) for n, v in start["headers"]])
    body = b"".join(part["body"] for part in parts)
    is_json = "json" in headers.get("Content-Type", "") and body
    return Response(start["status"], headers, body, json.loads(body) if is_json else None)
