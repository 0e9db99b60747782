"""Writers that repeat what they have no answer to, and what they, readers and a follower find."""

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
"""Before a request is repeated. An answer 503 asks for a whole second; this is harder."""


@dataclass(frozen=True)
class Acknowledged:
    """A create that was answered with 201."""

    at: float
    name: str
    product_id: int
    position: int


@dataclass
class Seen:
    """What has happened to the clients.

    Attributes:
        acknowledged: creates, in the order of their answers.
        answers: how often each status came; ``lost`` where none did.
        slow: seconds from the first request to the answer, of the create that took longest.
        replayed: creates whose answer was that to an earlier request.
        stale: reads that did not show what was acknowledged before they began.
        reads: reads that were judged.
        followed: positions that the follower was told of, in order.
        gone: how often the follower was told to start over.
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
        """The longest time in which nothing was acknowledged."""
        times = [each.at for each in self.acknowledged]
        return max(later - before for before, later in pairwise(times))

    @property
    def rate(self) -> float:
        """Creates in a second."""
        times = [each.at for each in self.acknowledged]
        return len(times) / (times[-1] - times[0])


class Load:
    """Clients of one or more instances of the service, until told to stop.

    Args:
        services: the instances, which the writers are spread over.
        token: everybody's.
        writers: how many write.
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
        """Write, read and follow inside the block; at its end finish what was begun."""
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
        """Wait until that many more creates were acknowledged."""
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
        """Ask for what was acknowledged last, and for the position."""
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
        """Take every change, as one who keeps a copy does."""
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
    """What the database says of what the clients were told.

    Attributes:
        lost: creates that were acknowledged and are not there, or under another id or position.
        doubled: names that more than one product has.
        gaps: positions that the log, or what the follower was told, leaves out or has twice.
        apart: nodes that do not hold the same as the first.
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
    """Compare what was acknowledged with what each node holds."""
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
    """Where positions are not 1, 2, 3, … in turn."""
    return [here for before, here in pairwise([0, *positions]) if here != before + 1]
