"""Deadlines for an unresponsive database: 503 after 2 s for reads, 5 s for writes, never a hang."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.db.support import on_mariadb
from tests.engines import EngineMissing, answering, connected, mariadb
from tests.server.recording_client import PRODUCTS
from tests.server.relay import behind_relay
from tests.server.service import Answer, Catalog, Service
from tests.support import PASSWORD, until

READ_SECONDS, WRITE_SECONDS = 2.0, 5.0
LENIENCE = 1.5
"""For a busy machine; without deadlines requests would take for ever, or twice as long."""

RECOVERY_SECONDS = 15.0

READS = (
    *(f"{PRODUCTS}?limit=7", PRODUCTS, f"{PRODUCTS}/1", f"{PRODUCTS}?q=lamp"),
    *(f"{PRODUCTS}?total=true", f"{PRODUCTS}/changes?since=0", "/api/auth/me"),
    *(f"{PRODUCTS}/my", f"{PRODUCTS}/changes?since=0&wait=1"),
)
LOG_IN = {"username": "ada", "password": PASSWORD}
WRITES = (
    ("POST", PRODUCTS, {"name": "Lamp", "price": 1}, ()),
    ("POST", PRODUCTS, {"name": "Lamp", "price": 1}, ("Idempotency-Key: {}",)),
    ("PATCH", f"{PRODUCTS}/1", {"price": 2}, ()),
    ("DELETE", f"{PRODUCTS}/2", None, ()),
    ("POST", "/api/auth/login", LOG_IN, ()),
)


async def timed(
    service: Service, delay: float, method: str, path: str, *fields: str, **options: object
) -> tuple[Answer, float]:
    """Send a request after a delay; return the response and its duration in seconds."""
    await asyncio.sleep(delay)
    connection = await service.connect()
    began = time.monotonic()
    answer = await connection.ask(method, path, *fields, **options)  # type: ignore[arg-type]
    took = time.monotonic() - began
    await connection.close()
    return answer, took


async def serves(service: Service) -> bool:
    """Tell whether a page of products is served."""
    return (await service.get(PRODUCTS)).status == 200


async def assert_refused_in_time(service: Service, token: str) -> None:
    """Assert that every operation is answered with 503 in time, however long the queue is."""
    # Requests arrive with an empty queue, behind waiting ones, and after the first time-outs.
    delays = (0, 0.4, 0.9, 1.4, 2.1)
    reads = [
        timed(service, delay, "GET", path, token=token if path.endswith(("/my", "/me")) else "")
        for path in READS
        for delay in delays
    ]
    writes = [
        timed(
            service,
            delay,
            method,
            path,
            # Each has its own key: a duplicate of a pending request is a conflict.
            *(field.format(delay) for field in fields),
            token=token,
            body=body,
        )
        for method, path, body, fields in WRITES
        for delay in delays
    ]
    answers = await asyncio.gather(*reads, *writes)

    names = [
        *(path for path in READS for _ in delays),
        *(str(w[:2]) for w in WRITES for _ in delays),
    ]
    statuses = {name: answer.status for name, (answer, _) in zip(names, answers, strict=True)}
    assert set(statuses.values()) == {503}, statuses
    assert all("retry-after" in answer.headers for answer, _ in answers)
    limits = [READ_SECONDS] * len(reads) + [WRITE_SECONDS] * len(writes)
    late = {
        name: took
        for name, (_, took), limit in zip(names, answers, limits, strict=True)
        if took > limit + LENIENCE
    }
    assert not late


@asynccontextmanager
async def own_mariadb(folder: Path, catalog: Catalog) -> AsyncIterator[int]:
    """Run a MariaDB for the service that can be frozen, and yield its process id."""
    folder.mkdir()
    try:
        server = mariadb(folder)
        process, url = server.__enter__()
    except EngineMissing as missing:
        pytest.skip(str(missing))
    try:
        await answering(process, url)
        async with connected(url) as cursor:
            await cursor.execute("CREATE DATABASE catalog CHARACTER SET utf8mb4")
        at = url.set(database="catalog").render_as_string(hide_password=False)
        catalog.environment["DATABASE_URL"] = at
        catalog.keep_deadlines()
        yield process.pid
    finally:
        os.kill(process.pid, signal.SIGCONT)
        server.__exit__(None, None, None)


class TestFrozenDatabase:
    async def test_requests_time_out_and_recover_with_the_database(
        self, catalog: Catalog, tmp_path: Path
    ) -> None:
        async with own_mariadb(tmp_path / "mariadb", catalog) as pid, catalog.start() as service:
            await service.serving()
            token = await service.sign_up()
            for path in READS:
                assert (await timed(service, 0, "GET", path, token=token))[0].status in {200, 404}
            os.kill(pid, signal.SIGSTOP)
            try:
                await assert_refused_in_time(service, token)
            finally:
                os.kill(pid, signal.SIGCONT)
            await until(partial(serves, service), within=RECOVERY_SECONDS)
            assert service.logged("request_failed") == []


@on_mariadb
class TestBlackholedDatabase:
    async def test_requests_time_out_and_recover_with_the_network(
        self, catalog: Catalog, database_url: URL
    ) -> None:
        async with behind_relay(catalog, database_url) as (relay, service, client):
            relay.stall()

            await assert_refused_in_time(service, client.token)

            relay.heal()
            relay.reset()
            await until(partial(serves, service), within=RECOVERY_SECONDS)
            assert service.logged("request_failed") == []
