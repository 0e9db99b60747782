"""Who reads after a write was acknowledged sees it: straight, and behind nginx with its cache.

Every product has one writer, who changes it again and again, so its version tells how much of it
a reader has seen. ``CATALOG_TEST_READS`` says how many reads a test does at least.
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
"""Readers who find a page in the cache, and readers who find it gone, in equal parts or so."""

AROUND_SECONDS = 0.25
"""By when a write that went around nginx shows there, by contract."""

PATH = "/api/products"
FRESH = "Cache-Control: no-cache"


class History:
    """What was acknowledged, and when; and what readers have seen instead.

    Attributes:
        reads: how many answers were judged.
        stale: what was missing from them.
    """

    def __init__(self, *, within: float = 0.0) -> None:
        self.reads = 0
        self.stale: list[str] = []
        self._acknowledged: dict[int, int] = {}
        self._recent: deque[tuple[float, int, int]] = deque()
        self._within = within

    def acknowledge(self, product: int, version: int) -> None:
        """Note that a writer has its answer: who asks from now on gets this version or newer."""
        self._recent.append((time.monotonic() + self._within, product, version))

    def due(self) -> dict[int, int]:
        """What a read that begins now has to show: ids and versions."""
        while self._recent and self._recent[0][0] <= time.monotonic():
            _, product, version = self._recent.popleft()
            self._acknowledged[product] = version
        return dict(self._acknowledged)

    def judge(self, due: dict[int, int], seen: dict[int, int], *, whole: bool) -> None:
        """Compare what a read has shown with what was due when it began.

        Args:
            due: from then.
            seen: ids and versions.
            whole: whether it shows everything, so that what is not there is missing.
        """
        self.reads += 1
        for product, version in due.items():
            if seen.get(product, 0 if whole else version) < version:
                self.stale.append(f"{product}: {seen.get(product)} and not {version}")


class Load:
    """Writers and readers, each on a connection of its own.

    Args:
        service: where accounts are made.
        token: the writers'.
        reading: the URL that is read from.
        through: the URL that is written to.
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
        """Write and read until there were enough reads."""
        connections = [await Connection.open(self._reading) for _ in range(READERS)]
        # One of the writers knows the way around.
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
                # A machine that is busy may refuse a write; then nothing is acknowledged.
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
            # Compressed pages are others than those that are not, and here they are small.
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
    # Or nothing is said about the cache.
    assert answers["HIT"] > READS // 4, answers
    return load


async def test_two_workers_show_what_was_acknowledged(service: Service) -> None:
    load = Load(service, await service.sign_up(), reading=service.url, through=service.url)
    load.around = load.history

    await load.run()

    assert load.history.reads >= READS
    assert load.history.stale == []


@needs_cache
async def test_nginx_shows_what_was_acknowledged_through_it_and_soon_the_rest(
    service: Service,
) -> None:
    load = await run_through_nginx(service)

    assert load.history.reads >= READS
    assert load.history.stale == []
    assert load.around.stale == []


@needs_cache
async def test_without_the_position_in_the_key_it_would_not(service: Service) -> None:
    load = await run_through_nginx(service, without_position)

    assert len(load.history.stale) > READS // 10
