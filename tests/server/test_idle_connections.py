"""Connections between requests: they keep nothing of the last request."""

import gzip
import json
from collections.abc import AsyncIterator
from random import Random

import pytest

from catalog.settings import Settings
from tests.db.support import on_sqlite
from tests.server.in_process import InProcess, serving
from tests.support import memory_traced

CONNECTIONS = 40
LONG = 60_000
LONG_FIELD = 8000
KEPT = CONNECTIONS * LONG
"""Bytes held if each connection kept its last body.

The tests ask for less than half: the last body read may stay, and a background task of the service
that runs for the first time between two measurements allocates some 150 kB.
"""


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[InProcess]:
    async with serving(settings) as service:
        yield service


async def held_after(service: InProcess, path: str, *fields: str, body: bytes) -> int:
    """Return the bytes that connections hold after a request with the body each."""
    lines = [f"POST {path} HTTP/1.1", "Host: catalog", f"Content-Length: {len(body)}", *fields]
    request = "\r\n".join([*lines, "", ""]).encode() + body
    with memory_traced() as grown:
        for _ in range(CONNECTIONS):
            connection = await service.connect()
            await connection.send(request)
            assert not (await connection.answer()).closes
    return grown()


@on_sqlite
@pytest.mark.parametrize("path", ["/api/auth/login", "/api/auth/login/"])
async def test_idle_connection_keeps_nothing_of_the_body_before(
    service: InProcess, path: str
) -> None:
    held = [
        await held_after(service, path, "Content-Type: application/json", body=body)
        for body in (b"{}", b"{}", b'{"username": "%b", "password": "b"}' % (b"a" * LONG))
    ]

    assert held[-1] - held[-2] < KEPT / 2


@on_sqlite
async def test_idle_connection_keeps_nothing_of_the_head_before(service: InProcess) -> None:
    held = [
        await held_after(service, "/api/auth/login/", *[f"X: {'a' * length}"] * 4, body=b"")
        for length in (1, 1, LONG_FIELD)
    ]

    assert held[-1] - held[-2] < CONNECTIONS * 4 * LONG_FIELD / 2


@on_sqlite
async def test_idle_connection_keeps_nothing_of_the_import_before(service: InProcess) -> None:
    token = await service.sign_up()
    chance = Random(1)  # noqa: S311 (must be repeatable)
    texts = [chance.randbytes(LONG // 20).hex() for _ in range(20)]
    lines = [json.dumps({"name": "Lamp", "price": 1, "description": text}) for text in ("", *texts)]
    fields = (
        f"Authorization: Bearer {token}",
        "Content-Type: application/x-ndjson",
        "Content-Encoding: gzip",
    )

    held = [
        await held_after(
            service, "/api/products?dry_run=true", *fields, body=gzip.compress(text.encode())
        )
        for text in (lines[0], lines[0], "\n".join(lines))
    ]

    assert held[-1] - held[-2] < KEPT / 2
