"""Products under killed workers: created once, numbered without gaps, and followed."""

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.database import Database
from catalog.products.models import Product, ProductChange
from tests.db.support import run_on
from tests.engines import Engine, settings_for
from tests.server.service import Catalog, Client, Connection, Service

PATH = "/api/products"
KEYS = int(os.environ.get("CATALOG_TEST_KEYS", "300"))
KILLS = 3
CLIENTS = 8
WRITERS = 8
CHANGES = 400
FOLLOWERS = 1000


class Cluster:
    """The service with two workers on one database, and an account's token."""

    def __init__(self, service: Service, database: Database, token: str) -> None:
        self.service = service
        self.database = database
        self.token = token

    @asynccontextmanager
    async def losing_workers(self) -> AsyncIterator[None]:
        """Kill a worker ``KILLS`` times, each soon after it has become ready."""

        async def kill() -> None:
            for _ in range(KILLS):
                ready = self.service.logged("worker_ready")
                await asyncio.sleep(0.3)
                os.kill(ready[-1]["worker"], signal.SIGKILL)
                await self.service.event("worker_ready", count=len(ready) + 1)

        killing = asyncio.create_task(kill())
        try:
            yield
        finally:
            await killing

    async def rows(self, *columns: Any) -> list[tuple[Any, ...]]:
        """Return rows of the database in the order of the first column."""

        async def read(connection: AsyncConnection) -> list[tuple[Any, ...]]:
            found = await connection.execute(select(*columns).order_by(columns[0]))
            return [tuple(row) for row in found]

        return await run_on(self.database.connection(), read)


@pytest.fixture
async def cluster(engine: Engine, tmp_path: Path) -> AsyncIterator[Cluster]:
    url = await engine.create_database(tmp_path)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.drop_database, url)
        service = await stack.enter_async_context(
            Catalog(tmp_path).start(
                "--workers=2", DATABASE_URL=url.render_as_string(hide_password=False)
            )
        )
        database = Database(settings_for(url))
        stack.push_async_callback(database.close)
        await service.serving()
        yield Cluster(service, database, await service.sign_up())


class TestKeys:
    async def test_each_idempotency_key_creates_one_product_under_killed_workers(
        self, cluster: Cluster
    ) -> None:
        chance = random.Random(4)  # noqa: S311 (repeatable is what it must be)
        keys = iter(range(KEYS))
        answers: dict[int, set[bytes]] = {key: set() for key in range(KEYS)}

        async def send(client: Client, key: int) -> None:
            body = {"name": f"Product {key}", "price": key}
            while True:
                answer = await client.ask("POST", PATH, f"Idempotency-Key: {key}", body=body)
                if answer is not None and answer.status == 201:
                    answers[key].add(answer.body)
                    return
                assert answer is None or answer.status in {409, 503}, answer.body
                await asyncio.sleep(0.01)

        async def work() -> None:
            clients = [Client(cluster.service.url, cluster.token) for _ in range(5)]
            for key in keys:
                copies = chance.randint(1, 5)
                await asyncio.gather(*(send(client, key) for client in clients[:copies]))
            for client in clients:
                await client.close()

        async with cluster.losing_workers():
            await asyncio.gather(*(work() for _ in range(CLIENTS)))

        assert len(cluster.service.logged("worker_died")) > 0
        assert {len(bodies) for bodies in answers.values()} == {1}
        names = await cluster.rows(Product.name)
        assert names == sorted((f"Product {key}",) for key in range(KEYS))
        told = {json.loads(body)["id"] for bodies in answers.values() for body in bodies}
        assert told == {product_id for (product_id,) in await cluster.rows(Product.id)}


class TestFeed:
    async def test_followed_changes_are_the_complete_history_under_killed_workers(
        self, cluster: Cluster
    ) -> None:
        chance = random.Random(5)  # noqa: S311 (the same)
        written = 0

        async def write() -> None:
            nonlocal written
            client, mine = Client(cluster.service.url, cluster.token), [0]
            while written < CHANGES:
                written += 1
                await asyncio.sleep(chance.random() * 0.02)
                path = f"{PATH}/{chance.choice(mine)}"
                kind = chance.choice(["POST", "POST", "PATCH", "DELETE"])
                if kind == "POST":
                    body = {"name": f"Lamp {written}", "price": 1}
                    answer = await client.ask("POST", PATH, body=body)
                    if answer is not None and answer.status == 201:
                        mine.append(json.loads(answer.body)["id"])
                elif kind == "PATCH":
                    await client.ask("PATCH", path, body={"price": written})
                else:
                    await client.ask("DELETE", path)
            await client.close()

        seen: list[dict[str, Any]] = []
        names = ["0"]

        async def follow(until: asyncio.Event) -> None:
            """Follow the stream with interruptions, resuming after the last change each time."""
            async with httpx.AsyncClient(base_url=cluster.service.url, timeout=20) as http:
                while not until.is_set() or seen[-1]["position"] < last_position:
                    with suppress(httpx.HTTPError, TimeoutError):
                        async with asyncio.timeout(chance.uniform(0.05, 0.5)):
                            headers = {"Accept": "text/event-stream", "Last-Event-ID": names[-1]}
                            url = f"{PATH}/changes"
                            async with http.stream("GET", url, headers=headers) as answer:
                                name = ""
                                async for line in answer.aiter_lines():
                                    if line.startswith("id: "):
                                        name = line.removeprefix("id: ")
                                    if line.startswith("data: {"):
                                        data = json.loads(line.removeprefix("data: "))
                                        if "position" in data:
                                            seen.append(data)
                                            names.append(name)

        last_position = 10**9
        done = asyncio.Event()
        following = asyncio.create_task(follow(done))
        async with cluster.losing_workers():
            await asyncio.gather(*(write() for _ in range(WRITERS)))
        log = ProductChange
        history = await cluster.rows(log.position, log.type, log.product_id, log.version)
        last_position = history[-1][0]
        done.set()
        async with asyncio.timeout(60):
            await following

        assert len(cluster.service.logged("worker_died")) > 0
        assert [row[0] for row in history] == [*range(1, len(history) + 1)]
        assert [
            (each["position"], each["type"], each["id"], each["version"]) for each in seen
        ] == history
        # Replaying the history yields the products.
        state: dict[int, int] = {}
        for _, kind, product_id, version in history:
            assert state.get(product_id, 0) == version - (kind != "deleted")
            state[product_id] = version
            if kind == "deleted":
                del state[product_id]
        assert sorted(state.items()) == await cluster.rows(Product.id, Product.version)


class TestFollowers:
    async def test_thousand_followers_of_one_worker_get_all_changes_and_a_clean_end(
        self, catalog: Catalog
    ) -> None:
        request = (
            f"GET {PATH}/changes HTTP/1.1\r\nHost: catalog\r\nAccept: text/event-stream\r\n\r\n"
        )

        async def follow(connection: Connection, count: int) -> bytes:
            """Return the stream's bytes up to the given number of changes."""
            told = b""
            while told.count(b"\ndata: ") < count:
                piece = await connection.reader.read(65536)
                assert piece, told
                told += piece
            return told

        async with catalog.start() as service:
            await service.serving()
            token = await service.sign_up()
            connections = [await service.connect() for _ in range(FOLLOWERS)]
            for connection in connections:
                await connection.send(request.encode())
            client = await service.connect()
            for number in range(5):
                body = {"name": f"Lamp {number}", "price": 1}
                answer = await client.ask("POST", PATH, token=token, body=body)
                assert answer.status == 201
            async with asyncio.timeout(60):
                told = await asyncio.gather(*(follow(each, 5) for each in connections))
                service.send_signal(signal.SIGTERM)
                ends = await asyncio.gather(*(each.reader.read() for each in connections))
            code = await service.exit_code()

        for each in told:
            positions = [event.partition(b".")[0] for event in each.split(b"\nid: ")[1:]]
            assert positions == [b"1", b"2", b"3", b"4", b"5"]
        # Each stream ends cleanly, with the last chunk.
        assert all(b"event: end" in end and end.endswith(b"0\r\n\r\n") for end in ends)
        assert code == 0
