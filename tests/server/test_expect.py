"""``Expect: 100-continue`` through nginx, which sends 100 itself: docs/deployment/proxies.md."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.nginx import needs_nginx, nginx
from tests.server.service import Catalog, Connection

pytestmark = needs_nginx

BODY = b'{"name": "Lamp"}'


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    """Return a connection to nginx before the service."""
    async with Catalog(tmp_path).start() as service:
        await service.serving()
        async with nginx(service.url) as proxy:
            connection = await Connection.open(proxy.url)
            yield connection
            await connection.close()


async def send_head(connection: Connection, start: str, media_type: str, length: int) -> None:
    await connection.send(
        f"{start} HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n".encode()
    )


class TestExpect:
    @pytest.mark.parametrize(
        ("start", "media_type", "status", "code"),
        [
            ("POST /api/products", "application/json", 401, "token-missing"),
            ("POST /api/auth/login", "text/plain", 415, "unsupported-media-type"),
            ("POST /api/nothing", "application/json", 404, "not-found"),
            ("PUT /api/auth/login", "application/json", 405, "method-not-allowed"),
        ],
    )
    async def test_refusal_of_the_service_follows_the_body(
        self, connection: Connection, start: str, media_type: str, status: int, code: str
    ) -> None:
        await send_head(connection, start, media_type, len(BODY))
        assert (await connection.answer()).status == 100
        await connection.send(BODY)
        answer = await connection.answer()

        assert (answer.status, json.loads(answer.body)["code"]) == (status, code)

    async def test_refused_import_need_not_be_sent(self, connection: Connection) -> None:
        await send_head(connection, "POST /api/products", "text/csv", 1_000_000_000)

        assert (await connection.answer()).status == 100
        assert (await connection.answer()).status == 401

    async def test_large_body_gets_no_100(self, connection: Connection) -> None:
        await send_head(connection, "POST /api/products", "application/json", 300_000)

        assert (await connection.answer()).status == 413
