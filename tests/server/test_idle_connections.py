"""Connections between requests: they keep nothing of the last one."""

import pytest

from catalog.settings import Settings
from tests.db.support import on_sqlite
from tests.server.in_process import InProcess, serving
from tests.support import memory_traced

CONNECTIONS = 20
LONG = 60_000


async def held_after(service: InProcess, path: str, length: int) -> int:
    """Return the bytes that connections hold after a request with a body of a length each."""
    body = {"username": "a" * length, "password": "b"}
    with memory_traced() as grown:
        for _ in range(CONNECTIONS):
            connection = await service.connect()
            assert not (await connection.ask("POST", path, body=body)).closes
    return grown()


@on_sqlite
@pytest.mark.parametrize("path", ["/api/auth/login", "/api/auth/login/"])
async def test_idle_connection_keeps_nothing_of_the_body_before(
    settings: Settings, path: str
) -> None:
    async with serving(settings) as service:
        await held_after(service, path, 1)
        short = await held_after(service, path, 1)
        long = await held_after(service, path, LONG)

    # One that was read last, at most, is still in a variable of some loop.
    assert long - short < 2 * LONG
