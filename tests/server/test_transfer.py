"""Imports and exports of a real process: memory, slow clients, and aborted streams."""

import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx

from tests.server.service import Catalog, Connection, Service

PATH = "/api/products"
NDJSON = "application/x-ndjson"

LINE = b'{"name":"Lamp","price":9.5,"description":"%s"}\n' % (b"x" * 12_000)
# More than fits into socket buffers.
LINES = 2_000
LARGE_LINES = 5_000

ROOM_MEGABYTES = 30
"""The allowed growth of a worker, whatever the size of a transfer."""


@asynccontextmanager
async def selling(
    catalog: Catalog, *, lines: int
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """Start one worker with one read connection, and import that many products."""
    async with catalog.start(CATALOG_DATABASE_POOL_SIZE="1") as service:
        await service.serving()
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            account = {"username": "ada", "email": "ada@example.com", "password": "s3cr3t-and-long"}
            signed_up = (await client.post("/api/auth/signup", json=account)).json()
            client.headers["Authorization"] = f"Bearer {signed_up['access_token']}"
            await send(client, lines)
            yield service, client


async def send(client: httpx.AsyncClient, lines: int) -> None:
    """Import that many products."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(lines // 100):
            yield LINE * 100

    answer = await client.post(PATH, content=pieces(), headers={"Content-Type": NDJSON})
    assert answer.json()["created"] == lines


async def begin_export(service: Service) -> Connection:
    """Request an export, and read only its beginning."""
    connection = await service.connect()
    await connection.send(
        f"GET {PATH} HTTP/1.1\r\nHost: catalog\r\nAccept: {NDJSON}\r\n\r\n".encode()
    )
    head = await connection.reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head
    assert b"transfer-encoding: chunked" in head.lower()
    await connection.reader.readuntil(b'"Lamp"')
    return connection


def largest_resident(pid: int) -> float:
    """Return the peak resident memory of a process in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1000


class TestMemory:
    async def test_worker_memory_does_not_grow_with_the_transfer(self, catalog: Catalog) -> None:
        async with selling(catalog, lines=100) as (service, client):
            (worker,) = service.workers
            before = largest_resident(worker)

            await send(client, LARGE_LINES)
            after_import = largest_resident(worker)
            size = 0
            async with client.stream("GET", PATH, headers={"Accept": NDJSON}) as answer:
                async for piece in answer.aiter_raw():
                    size += len(piece)
            after_export = largest_resident(worker)

            assert size > LARGE_LINES * len(LINE) > 2 * ROOM_MEGABYTES * 1_000_000
            assert after_import - before < ROOM_MEGABYTES
            assert after_export - before < ROOM_MEGABYTES


class TestSlowClient:
    async def test_slow_export_holds_no_connection_and_is_drained(self, catalog: Catalog) -> None:
        async with selling(catalog, lines=LINES) as (service, client):
            for _ in range(3):
                await (await begin_export(service)).close()
            export = await begin_export(service)

            # There is one read connection to the database.
            for _ in range(3):
                assert (await client.get(f"{PATH}?limit=1")).status_code == 200
            service.send_signal(signal.SIGTERM)
            await service.event("stopping")
            text = await export.reader.read()

            assert text.count(b'"Lamp"') == LINES - 1
            assert text.endswith(b"\r\n0\r\n\r\n")
            assert await service.exit_code() == 0
            # A disconnected client is not an error.
            assert service.logged("event_loop_error") == []
            assert service.text == ""


class TestAbortedExport:
    async def test_failed_export_has_no_last_chunk(self, catalog: Catalog) -> None:
        async with selling(catalog, lines=LINES) as (service, _):
            export = await begin_export(service)

            with closing(sqlite3.connect(catalog.folder / "catalog.db")) as database:
                database.execute("ALTER TABLE products RENAME TO lost")
            text = await export.reader.read()

            assert text.count(b'"Lamp"') < LINES - 1
            assert not text.endswith(b"\r\n0\r\n\r\n")
