"""Reads after an acknowledged write see it, both directly and through nginx with its cache.

Every product has one writer, which changes it repeatedly, so that its version tells which writes a
reader has seen. ``CATALOG_TEST_READS`` is the minimum number of reads in a test.
"""

import asyncio
import json
import os
import time
from collections import deque

from tests.server.nginx import Edit, needs_cache, nginx, without_position
from tests.server.service import Connection, Service

READS = int(os.environ.get("CATALOG_TEST_READS", "2000"))
READERS = 16
WRITERS = 4

READS_PER_WRITE = 25
"""Balances readers that hit the cache against readers that miss it."""

AROUND_SECONDS = 0.25
"""The bound, by contract, after which a write that bypassed nginx is visible through it."""

PATH = "/api/products"
FRESH = "Cache-Control: no-cache"


class History:
    """Acknowledged writes with their times, and the stale reads.

    Attributes:
        reads: the number of judged responses.
        stale: the writes missing from them.
    """

    def __init__(self, *, within: float = 0.0) -> None:
        self.reads = 0
        self.stale: list[str] = []
        self._acknowledged: dict[int, int] = {}
        self._recent: deque[tuple[float, int, int]] = deque()
        self._within = within

    def acknowledge(self, product: int, version: int) -> None:
        """Record an acknowledged write: later reads must see this version or a newer one."""
        self._recent.append((time.monotonic() + self._within, product, version))

    def due(self) -> dict[int, int]:
        """Return the ids and versions that a read beginning now must show."""
        while self._recent and self._recent[0][0] <= time.monotonic():
            _, product, version = self._recent.popleft()
            self._acknowledged[product] = version
        return dict(self._acknowledged)

    def judge(self, due: dict[int, int], seen: dict[int, int], *, whole: bool) -> None:
        """Compare the products that a read returned with those due when it began.

        Args:
            due: from then.
            seen: ids and versions.
            whole: whether the read returns all products, so that an absent one is missing.
        """
        self.reads += 1
        for product, version in due.items():
            if seen.get(product, 0 if whole else version) < version:
                self.stale.append(f"{product}: {seen.get(product)} and not {version}")


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
        """Write and read until there are enough reads."""
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
            lamp = {"name": "Lamp", "price": 1}
            answer = await connection.ask("POST", PATH, token=self._token, body=lamp)
            assert answer.status == 201, answer.body
            path = answer.headers["location"]
            price = 1
            while True:
                # A busy machine may refuse a write with 503; then nothing is acknowledged.
                if answer.status != 503:
                    assert answer.status in {200, 201}, answer.body
                    shown = json.loads(answer.body)
                    history.acknowledge(shown["id"], shown["version"])
                await self._turn.acquire()
                price += 1
                change = {"price": price}
                answer = await connection.ask("PATCH", path, token=self._token, body=change)
        finally:
            await connection.close()

    async def _read(self, number: int, connection: Connection) -> None:
        for turn in range(READS // READERS + 1):
            if (number + turn) % READS_PER_WRITE == 0:
                self._turn.release()
            due, due_around = self.history.due(), self.around.due()
            # Compressed pages are cached apart from uncompressed ones; here both are small.
            fields = [FRESH] if turn % 50 == 1 else ["Accept-Encoding: gzip"] * (turn % 2)
            if turn % 3 and due:
                product = sorted(due)[turn % len(due)]
                answer = await connection.get(f"{PATH}/{product}", *fields)
                shown, whole = [json.loads(answer.body)], False
            else:
                answer = await connection.get(f"{PATH}?fields=id,version", *fields)
                shown, whole = json.loads(answer.body)["products"], True
            assert answer.status == 200, answer.body
            seen = {each["id"]: each["version"] for each in shown}
            self.history.judge(due, seen, whole=whole)
            self.around.judge(due_around, seen, whole=whole)


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

    assert len(load.history.stale) > READS // 10
