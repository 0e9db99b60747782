"""Log-ins as fast as they go, and what ``GET /api/products`` feels of them.

Some clients log in one after the other with a right password while others ask for the list at a
modest fixed pace; in between, those ask alone. One account ends its oldest session with each
log-in beyond a hundred, which costs more, so sample accounts take turns.
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
"""Connections that ask for the list in turn: enough for each worker to have some."""

WARM_UP = 5
"""Answers on each connection that are not counted."""


@dataclass
class Turn:
    """What was measured in some seconds: milliseconds an answer, and how many of each status."""

    lists: list[float] = field(default_factory=list)
    log_ins: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Load:
    """Who asks for what, and for how long."""

    url: str
    path: str
    pace: int
    clients: int
    seconds: float
    log_ins: list[bytes]

    async def run(self, *, with_log_ins: bool) -> Turn:
        """Let all of them ask until the time is up."""
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
        # What a worker has to make once, for its first answers.
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
    """The bytes of a log-in."""
    body = json.dumps({"username": username, "password": password}).encode()
    head = (
        "POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def percentile(values: list[float], percent: int) -> float:
    """The smallest of the values that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
