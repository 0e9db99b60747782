"""Load of writers that retry, readers and a follower of changes, and a check of the results."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from tests.cluster.galera import Cluster
from tests.server.service import Client, Service

PATH = "/api/products"
PAUSE_SECONDS = 0.05
"""Delay before a retry. A 503 asks for a whole second; this is harder on the service."""


@dataclass(frozen=True)
class Acknowledged:
    """A create that returned 201."""

    at: float
    name: str
    product_id: int
    position: int


@dataclass
class Seen:
    """Results of all clients.

    Attributes:
        acknowledged: acknowledged creates, in the order of their responses.
        answers: responses by status; ``lost`` counts requests without a response.
        slow: seconds from the first attempt to the response, of the slowest create.
        replayed: creates whose response was replayed by their idempotency key.
        stale: reads that missed a write acknowledged before they began.
        reads: reads that were checked.
        followed: positions that the follower received, in order.
        gone: how often the follower got 410 and had to start over.
    """

    acknowledged: list[Acknowledged] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    slow: float = 0.0
    replayed: int = 0
    stale: list[str] = field(default_factory=list)
    reads: int = 0
    followed: list[int] = field(default_factory=list)
    gone: int = 0

    @property
    def pause(self) -> float:
        """Longest time between two acknowledgements, in seconds."""
        times = [each.at for each in self.acknowledged]
        return max(later - before for before, later in pairwise(times))

    @property
    def rate(self) -> float:
        """Acknowledged creates per second."""
        times = [each.at for each in self.acknowledged]
        return len(times) / (times[-1] - times[0])


class Load:
    """Clients of one or more instances of the service, running until they are stopped.

    Args:
        services: the instances, over which the writers are spread.
        token: the access token of all clients.
        writers: the number of writers.
        keys: whether creates carry an ``Idempotency-Key``.
    """

    def __init__(
        self, services: Sequence[Service], token: str, *, writers: int, keys: bool = True
    ) -> None:
        self.seen = Seen()
        self._urls = [service.url for service in services]
        self._token = token
        self._writers = writers
        self._keys = keys
        self._stopped = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Seen]:
        """Write, read and follow inside the block; requests in progress are finished at its end."""
        clients = [
            *(self._write(number) for number in range(self._writers)),
            self._read(),
            self._follow(),
        ]
        tasks = [asyncio.create_task(client) for client in clients]
        try:
            yield self.seen
        finally:
            self._stopped = True
            await asyncio.gather(*tasks)

    def _client(self, number: int = 0) -> Client:
        return Client(self._urls[number % len(self._urls)], self._token)

    async def more(self, count: int) -> None:
        """Wait until ``count`` more creates were acknowledged."""
        goal = len(self.seen.acknowledged) + count
        async with asyncio.timeout(60):
            while len(self.seen.acknowledged) < goal:
                await asyncio.sleep(0.01)

    async def _write(self, writer: int) -> None:
        client = self._client(writer)
        number = 0
        while not self._stopped:
            number += 1
            await self._create(client, f"{writer}-{number}")
        await client.close()

    async def _create(self, client: Client, name: str) -> None:
        fields = [f"Idempotency-Key: {name}"] if self._keys else []
        body = {"name": name, "price": 1}
        begun = time.monotonic()
        while True:
            answer = await client.ask("POST", PATH, *fields, body=body)
            self.seen.answers["lost" if answer is None else str(answer.status)] += 1
            if answer is not None and answer.status == 201:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        now = time.monotonic()
        self.seen.slow = max(self.seen.slow, now - begun)
        self.seen.replayed += "idempotency-replayed" in answer.headers
        position = int(answer.headers["catalog-position"])
        product_id = json.loads(answer.body)["id"]
        self.seen.acknowledged.append(Acknowledged(now, name, product_id, position))

    async def _read(self) -> None:
        """Read the last acknowledged product and check the position."""
        client = self._client()
        while not self._stopped:
            await asyncio.sleep(0.005)
            if not self.seen.acknowledged:
                continue
            latest = self.seen.acknowledged[-1]
            answer = await client.ask("GET", f"{PATH}/{latest.product_id}")
            self.seen.answers["read lost" if answer is None else f"read {answer.status}"] += 1
            if answer is None or answer.status == 503:
                continue
            self.seen.reads += 1
            position = int(answer.headers.get("catalog-position", "0"))
            if answer.status != 200 or position < latest.position:
                self.seen.stale.append(f"{latest}: {answer.status} at {position}")
        await client.close()

    async def _follow(self) -> None:
        """Follow the change feed, as a client that keeps a copy does."""
        client = self._client(1)
        since = 0
        while not self._stopped:
            answer = await client.ask("GET", f"{PATH}/changes?since={since}&limit=1000&wait=1")
            if answer is None or answer.status == 503:
                await asyncio.sleep(PAUSE_SECONDS)
            elif answer.status == 410:
                self.seen.gone += 1
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                assert answer.status == 200, answer.body
                changes = json.loads(answer.body)["changes"]
                self.seen.followed += [change["position"] for change in changes]
                since = self.seen.followed[-1] if self.seen.followed else 0
        await client.close()


@dataclass(frozen=True)
class Verdict:
    """The database compared with the responses that clients got.

    Attributes:
        lost: acknowledged creates that are missing, or have another id or position.
        doubled: names of more than one product.
        gaps: positions that are missing or repeated in the change log or at the follower.
        apart: nodes whose content differs from that of the first node.
    """

    lost: list[str]
    doubled: list[str]
    gaps: list[int]
    apart: list[str]


_ROWS = """
SELECT p.id, p.name, c.position FROM products p
LEFT JOIN product_changes c ON c.product_id = p.id ORDER BY p.id
"""
_ALL = """
SELECT COUNT(*), BIT_XOR(CRC32(CONCAT_WS('|', p.id, p.name, p.price, w.words, c.position)))
FROM products p JOIN product_words w ON w.rowid = p.id JOIN product_changes c ON c.product_id = p.id
"""


async def judge(cluster: Cluster, database: str, seen: Seen) -> Verdict:
    """Compare the acknowledged creates with the content of each node."""
    first = cluster.nodes[0]
    rows = await first.rows(_ROWS, database)
    there = {(product_id, name, position) for product_id, name, position in rows}
    told = {(each.product_id, each.name, each.position) for each in seen.acknowledged}
    names = Counter(name for _, name, _ in rows)
    log = await first.rows("SELECT position FROM product_changes ORDER BY position", database)
    sums = {node.name: await node.rows(_ALL, database) for node in cluster.nodes}
    return Verdict(
        lost=[name for _, name, _ in told - there],
        doubled=[name for name, count in names.items() if count > 1],
        gaps=[*_gaps([position for (position,) in log]), *_gaps(seen.followed)],
        apart=[name for name, each in sums.items() if each != sums[first.name]],
    )


def _gaps(positions: Sequence[int]) -> list[int]:
    """Return the positions that break the sequence 1, 2, 3, …."""
    return [here for before, here in pairwise([0, *positions]) if here != before + 1]
