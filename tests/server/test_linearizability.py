"""Reads after an acknowledged write see it, both directly and through nginx with its cache.

Every product has one writer, which creates it under a key, changes it repeatedly and deletes it, so
that its version tells which writes a reader has seen. ``CATALOG_TEST_READS`` is the minimum number
of reads in a test, which goes on until there were enough writes as well.
"""

import asyncio
import json
import os
import sys
import time
from collections import deque
from collections.abc import Container
from itertools import count
from typing import Any, cast
from uuid import uuid4

from tests.server.nginx import Edit, needs_cache, nginx, without_eras, without_position
from tests.server.service import Connection, Service

READS = int(os.environ.get("CATALOG_TEST_READS", "2000"))
READERS = 16
WRITERS = 4

READS_PER_WRITE = 25
"""Balances readers that hit the cache against readers that miss it."""

WRITES = READS // READS_PER_WRITE // 2
"""Acknowledged writes in a test, at least."""

AROUND_SECONDS = 0.25
"""The bound, by contract, after which a write that bypassed nginx is visible through it."""

UPDATES = 5
"""Updates of a product before it is deleted."""

GONE = 0
"""Stands for the version of a deleted product."""

PATH = "/api/products"
FIELDS = "fields=id,version"
FRESH = "Cache-Control: no-cache"


class History:
    """Acknowledged writes with their times, and the stale reads.

    Attributes:
        reads: the number of judged responses.
        writes: the number of acknowledged writes.
        stale: the writes missing from them.
    """

    def __init__(self, *, within: float = 0.0) -> None:
        self.reads = self.writes = 0
        self.stale: list[str] = []
        self._acknowledged: dict[int, int] = {}
        self._leaving: set[int] = set()
        self._recent: deque[tuple[float, int, int]] = deque()
        self._within = within

    def acknowledge(self, product: int, version: int) -> None:
        """Record an acknowledged write: later reads must see this version or a newer one."""
        self.writes += 1
        self._recent.append((time.monotonic() + self._within, product, version))

    def begin_delete(self, product: int) -> None:
        """Record that a product may be absent from now on."""
        self._leaving.add(product)

    def due(self) -> dict[int, int]:
        """Return the ids and versions that a read beginning now must show."""
        while self._recent and self._recent[0][0] <= time.monotonic():
            _, product, version = self._recent.popleft()
            self._acknowledged[product] = version
        return dict(self._acknowledged)

    def judge(self, due: dict[int, int], seen: dict[int, int], chosen: Container[int]) -> None:
        """Compare the products that a read returned with those due when it began.

        Args:
            due: from then.
            seen: ids and versions.
            chosen: the ids of the products that the read returns, if they exist.
        """
        self.reads += 1
        for number, version in due.items():
            if number not in chosen:
                continue
            shown = seen.get(number, GONE)
            is_stale = shown != GONE if version == GONE else shown < version
            if is_stale and not (shown == GONE and number in self._leaving):
                self.stale.append(f"{number}: {shown} and not {version}")


class Load:
    """Writers and readers, each on its own connection.

    Args:
        service: where accounts are created.
        token: the writers'.
        reading: the URL for reads.
        through: the URL for writes.
    """

    def __init__(self, service: Service, token: str, *, reading: str, through: str) -> None:
        self.service = service
        self.history = History()
        self.around = History(within=AROUND_SECONDS)
        self._token = token
        self._reading = reading
        self._through = through
        self._turn = asyncio.Semaphore(0)

    async def run(self) -> None:
        """Write and read until there are enough of both."""
        connections = [await Connection.open(self._reading) for _ in range(READERS)]
        # One of the writers bypasses nginx.
        ways = [(self._through, self.history)] * (WRITERS - 1) + [(self.service.url, self.around)]
        writers = [asyncio.create_task(self._write(url, history)) for url, history in ways]
        try:
            await asyncio.gather(*(self._read(n, each) for n, each in enumerate(connections)))
        finally:
            for task in writers:
                task.cancel()
            ends = await asyncio.gather(*writers, return_exceptions=True)
            for each in connections:
                await each.close()
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    async def _write(self, url: str, history: History) -> None:
        connection = await Connection.open(url)
        try:
            while True:
                await self._write_one(connection, history)
        finally:
            await connection.close()

    async def _write_one(self, connection: Connection, history: History) -> None:
        """Create a product, change it, and delete it."""
        lamp = {"name": "Lamp", "price": 1}
        key = f"Idempotency-Key: {uuid4().hex}"
        created = await self._send(connection, "POST", PATH, key, body=lamp)
        product, path = created["id"], f"{PATH}/{created['id']}"
        history.acknowledge(product, created["version"])
        for price in range(2, UPDATES + 2):
            await self._turn.acquire()
            changed = await self._send(connection, "PATCH", path, body={"price": price})
            history.acknowledge(product, changed["version"])
        await self._turn.acquire()
        history.begin_delete(product)
        await self._send(connection, "DELETE", path)
        history.acknowledge(product, GONE)

    async def _send(
        self, connection: Connection, method: str, path: str, *fields: str, body: Any = None
    ) -> dict[str, Any]:
        """Send a write until it is accepted: a busy machine may refuse it with 503."""
        while True:
            answer = await connection.ask(method, path, *fields, token=self._token, body=body)
            if answer.status != 503:
                # A delete that was refused may have been committed.
                done = {404} if method == "DELETE" else {201}
                assert answer.status in {200, *done}, answer.body
                return cast("dict[str, Any]", json.loads(answer.body))
            await self._turn.acquire()

    async def _read(self, number: int, connection: Connection) -> None:
        # Page after the first one, and the id before which it begins.
        deep: tuple[str, int] | None = None
        product = GONE
        for turn in count():
            if self.history.reads >= READS and self.history.writes >= WRITES:
                return
            if (number + turn) % READS_PER_WRITE == 0:
                self._turn.release()
            due, due_around = self.history.due(), self.around.due()
            # Compressed pages are cached apart from uncompressed ones; here both are small.
            fields = [FRESH] if turn % 50 == 1 else ["Accept-Encoding: gzip"] * (turn % 2)
            # The newest ones: most of the others are deleted.
            newest = sorted(due)[-2 * WRITERS :]
            chosen: Container[int] | None = None
            before = sys.maxsize
            path = f"{PATH}?{FIELDS}"
            if turn % 6 in {1, 2, 4} and newest:
                product = newest[turn % len(newest)]
                path, chosen = f"{PATH}/{product}", {product}
            elif turn % 6 == 5 and newest:
                # This page and the one after a cursor stay cached while others change.
                chosen = newest[-2:]
                path = f"{path}&ids={','.join(map(str, newest[-2:]))}"
            elif turn % 12 == 3:
                path = f"{path}&limit=2"
            elif turn % 12 == 9 and deep is not None:
                # Pages of any size are composed of the products of others.
                path, before = deep
                path = path.replace("limit=2", f"limit={1 + turn % 5}")
            answer = await connection.get(path, *fields)
            assert answer.status == 200 or (answer.status, chosen) == (404, {product}), answer.body
            body = json.loads(answer.body)
            shown = body.get("products", [body] if answer.status == 200 else [])
            if chosen is None:
                last = shown[-1]["id"] if body["next"] else 0
                chosen = range(last, before)
                if body["next"] and before == sys.maxsize:
                    deep = body["next"], last
            seen = {each["id"]: each["version"] for each in shown}
            self.history.judge(due, seen, chosen)
            self.around.judge(due_around, seen, chosen)


async def run_through_nginx(service: Service, edit: Edit | None = None) -> Load:
    token = await service.sign_up()
    async with nginx(service.url, edit=edit) as proxy:
        await proxy.caching()
        load = Load(service, token, reading=proxy.url, through=proxy.url)
        await load.run()
        answers = proxy.answers()
    # Otherwise the test would say nothing about the cache.
    assert answers["HIT"] > READS // 4, answers
    return load


async def test_two_workers_show_every_acknowledged_write(service: Service) -> None:
    load = Load(service, await service.sign_up(), reading=service.url, through=service.url)
    load.around = load.history

    await load.run()

    assert load.history.reads >= READS
    assert load.history.stale == []


@needs_cache
async def test_nginx_shows_acknowledged_writes_at_once_and_bypassing_ones_soon(
    service: Service,
) -> None:
    load = await run_through_nginx(service)

    assert load.history.reads >= READS
    assert load.history.stale == []
    assert load.around.stale == []


@needs_cache
async def test_control_reads_are_stale_without_the_position_in_the_key(service: Service) -> None:
    load = await run_through_nginx(service, without_position)

    assert len(load.history.stale) > WRITES


@needs_cache
async def test_control_reads_are_stale_if_every_change_passes_for_a_creation(
    service: Service,
) -> None:
    load = await run_through_nginx(service, without_eras)

    assert len(load.history.stale) > WRITES // 10
