"""Log-ins at full speed, and their effect on ``GET /api/products``.

Some clients log in one after the other with a correct password while others request the list at a
moderate fixed rate; for comparison, the lists also run alone. An account ends its oldest session
with each log-in beyond a hundred, which costs more, so sample accounts take turns.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle

from tests.server.service import Connection

LISTENERS = 8
"""Connections that request the list in turn: enough for each worker to have some."""

WARM_UP = 5
"""Uncounted answers on each connection."""


@dataclass
class Turn:
    """Results of some seconds: latencies in milliseconds, and counts by status."""

    lists: list[float] = field(default_factory=list)
    log_ins: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Load:
    """Requests to send, at which rate and for how long."""

    url: str
    path: str
    pace: int
    clients: int
    seconds: float
    log_ins: list[bytes]

    async def run(self, *, with_log_ins: bool) -> Turn:
        """Run all clients until the time is up."""
        turn = Turn()
        end = time.perf_counter() + self.seconds
        tasks = [self._list(turn, end, number) for number in range(LISTENERS)]
        if with_log_ins:
            requests = cycle(self.log_ins)
            tasks += [self._log_in(turn, end, requests) for _ in range(self.clients)]
        await asyncio.gather(*tasks)
        return turn

    async def _list(self, turn: Turn, end: float, number: int) -> None:
        connection = await Connection.open(self.url)
        # Warm-up: the first answers include one-time initialization in the worker.
        for _ in range(WARM_UP):
            await connection.get(self.path)
        interval = LISTENERS / self.pace
        due = time.perf_counter() + interval * number / LISTENERS
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            answer = await connection.get(self.path)
            turn.lists.append((time.perf_counter() - began) * 1000)
            turn.outcomes[f"list {answer.status}"] += 1
            due += interval
        await connection.close()

    async def _log_in(self, turn: Turn, end: float, requests: Iterator[bytes]) -> None:
        connection = await Connection.open(self.url)
        while time.perf_counter() < end:
            began = time.perf_counter()
            await connection.send(next(requests))
            answer = await connection.answer()
            turn.log_ins.append((time.perf_counter() - began) * 1000)
            turn.outcomes[f"log-in {answer.status}"] += 1
        await connection.close()


def login_of(username: str, password: str) -> bytes:
    """Return the bytes of a log-in request."""
    body = json.dumps({"username": username, "password": password}).encode()
    head = (
        "POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def percentile(values: list[float], percent: int) -> float:
    """Return the smallest value that ``percent`` % of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
