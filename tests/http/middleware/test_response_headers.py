"""Headers of every response: security, caching; HEAD, OPTIONS, 304."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import pytest
from hypercorn.config import Config
from quart import Quart

from tests.http.kinds import KINDS, Kind, ask, every_kind
from tests.http.wire import exchange
from tests.support import Caller, Response

TOKEN = (b"authorization", b"Bearer x")


class TestSecurityHeaders:
    @every_kind
    async def test_security_headers_are_sent_once(self, app_that_fails: Quart, kind: Kind) -> None:
        answer = await ask(app_that_fails, kind)

        assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"]
        assert answer.headers.getlist("Referrer-Policy") == ["no-referrer"]
        (policy,) = answer.headers.getlist("Content-Security-Policy")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy

    @every_kind
    async def test_policy_allows_loading_only_on_pages(
        self, app_that_fails: Quart, kind: Kind
    ) -> None:
        answer = await ask(app_that_fails, kind)

        policy = answer.headers["Content-Security-Policy"]
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            assert "script-src 'unsafe-inline'" not in policy
            assert not re.search(r"https?:|\*", policy)
        else:
            assert policy == "default-src 'none'; frame-ancestors 'none'"

    @every_kind
    async def test_server_software_is_not_disclosed(
        self, app_that_fails: Quart, kind: Kind
    ) -> None:
        answer = await ask(app_that_fails, kind)

        assert not {"Server", "X-Powered-By", "Set-Cookie"} & set(answer.headers.keys())


class TestCacheControl:
    PUBLIC = ("asset", "script")
    REVALIDATED = ("page", "documentation", "openapi")

    @every_kind
    async def test_cache_control_is_sent_once(self, app_that_fails: Quart, kind: Kind) -> None:
        answer = await ask(app_that_fails, kind)

        (value,) = answer.headers.getlist("Cache-Control")
        if kind in [KINDS[name] for name in self.PUBLIC]:
            assert value == "public, max-age=3600"
        elif kind in [KINDS[name] for name in self.REVALIDATED]:
            assert value == "no-cache"
        else:
            assert value == "no-store"

    @every_kind
    async def test_response_to_a_request_with_a_token_is_not_stored(
        self, app_that_fails: Quart, kind: Kind
    ) -> None:
        answer = await ask(app_that_fails, kind, TOKEN)

        assert answer.headers.getlist("Cache-Control") == ["no-store"]

    async def test_response_that_contains_a_token_is_not_stored(self, anyone: Caller) -> None:
        signed_up = await anyone.sign_up("ada")
        logged_in = await anyone.log_in("ada")

        for answer in (signed_up, logged_in):
            assert answer.json["access_token"]
            assert answer.headers.getlist("Cache-Control") == ["no-store"]

    async def test_public_list_is_revalidated_and_own_list_not_stored(
        self, ada: Caller, anyone: Caller
    ) -> None:
        created = await ada.create_product("Lamp")
        mine = await ada.get("/api/products/my")
        everyones = await anyone.get("/api/products")
        deleted = await ada.delete(created.json["id"])

        assert created.status_code == 201
        for answer in (created, mine, deleted):
            assert answer.headers.getlist("Cache-Control") == ["no-store"]
        assert everyones.headers.getlist("Cache-Control") == ["no-cache"]


class TestHead:
    PATHS = ("/livez", "/readyz", "/", "/docs", "/docs/page.css", "/openapi.json", "/nowhere")
    GUARDED = ("/api/products/my", "/api/auth/refresh")

    @pytest.mark.parametrize("path", [*PATHS, *GUARDED, "/api/products?limit=x"])
    async def test_head_has_the_headers_of_get(self, bare_app: Quart, path: str) -> None:
        own_id = (b"x-request-id", b"same")

        get = await exchange(bare_app, "GET", path, headers=[own_id])
        head = await exchange(bare_app, "HEAD", path, headers=[own_id])

        assert head.status_code == get.status_code
        assert comparable(head) == comparable(get)
        assert int(head.headers["Content-Length"]) == len(get.body)

    @pytest.mark.parametrize("path", PATHS)
    async def test_head_has_no_body(self, bare_app: Quart, tmp_path: Path, path: str) -> None:
        async with served(bare_app, tmp_path / "socket") as address:
            head, body = await talk(address, f"HEAD {path} HTTP/1.1")

        assert b"content-length: " in head.lower()
        assert body == b""


class TestOptions:
    async def test_options_has_neither_body_nor_length_nor_type(
        self, bare_app: Quart, tmp_path: Path
    ) -> None:
        async with served(bare_app, tmp_path / "socket") as address:
            head, body = await talk(address, "OPTIONS /livez HTTP/1.1")

        assert head.startswith(b"HTTP/1.1 204 ")
        assert b"\r\nallow: GET, HEAD, OPTIONS" in head
        # RFC 9110, section 8.6: a 204 has no length; without a body there is no type either.
        assert b"\r\ncontent-length:" not in head.lower()
        assert b"\r\ncontent-type:" not in head.lower()
        assert body == b""


class TestNotModified:
    async def test_not_modified_has_neither_body_nor_length_nor_type(
        self, bare_app: Quart, tmp_path: Path
    ) -> None:
        async with served(bare_app, tmp_path / "socket") as address:
            request = "GET /openapi.json HTTP/1.1\r\nIf-None-Match: *"
            head, body = await talk(address, request)

        assert head.startswith(b"HTTP/1.1 304 ")
        assert b"\r\netag: " in head.lower()
        # RFC 9110, section 8.6: a length would be that of the omitted body.
        assert b"\r\ncontent-length:" not in head.lower()
        assert b"\r\ncontent-type:" not in head.lower()
        assert body == b""


def comparable(answer: Response) -> list[tuple[str, str]]:
    """Return the headers, names in lower case, without those of time or counts."""
    headers = [(name.lower(), value) for name, value in answer.headers.items()]
    return sorted(header for header in headers if header[0] not in {"date", "expires", "ratelimit"})


@asynccontextmanager
async def served(app: Quart, socket: Path) -> AsyncIterator[Path]:
    """Serve an app on a unix socket: omitting the body is up to the server."""
    config = Config()
    config.bind = [f"unix:{socket}"]
    config.errorlog = None
    stop = asyncio.Event()
    serving = asyncio.create_task(
        hypercorn.asyncio.serve(without_lifespan(app), config, shutdown_trigger=stop.wait)
    )
    while not socket.is_socket() and not serving.done():
        await asyncio.sleep(0)
    try:
        yield socket
    finally:
        stop.set()
        await serving


def without_lifespan(app: Quart) -> Any:
    """Wrap the app without its lifespan, since the fixture has started it already."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await app.asgi_app(scope, receive, send)

    return serve


async def talk(address: Path, request_line: str) -> tuple[bytes, bytes]:
    """Send one request on its own connection; return the response's head and body."""
    reader, writer = await asyncio.open_unix_connection(address)
    writer.write(f"{request_line}\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body
