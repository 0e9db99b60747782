"""Log-ins as fast as they go, and what ``GET /api/products`` feels of them.

Some clients log in one after the other with a right password while others ask for the list at a
modest fixed pace; in between, those ask alone. Needs a running service with
``CATALOG_LOGIN_LIMIT=off``, so that it does not limit log-ins by address. One account ends its
oldest session with each log-in beyond a hundred, which costs more; sample accounts take turns.

    catalog seed --users 300 --products 2000 --password "correct horse battery staple"
    python -m tests.load.sign_in --url http://127.0.0.1:8000 --samples 300 --password "correct …"
    python -m tests.load.sign_in --url http://127.0.0.1:8000 --username admin --password …
"""

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle

import click

from catalog.auth.samples import username_of
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


@click.command()
@click.option("--url", required=True, help="Where the service runs: http://127.0.0.1:8000.")
@click.option("--username", help="Who logs in again and again.")
@click.option("--samples", default=0, help="How many sample accounts do so instead, in turn.")
@click.option("--password", required=True, help="Their password; wrong ones would be counted.")
@click.option("--path", default="/api/products?limit=20", show_default=True)
@click.option("--pace", default=50, show_default=True, help="Lists asked for in a second.")
@click.option("--clients", default=4, show_default=True, help="Who log in at the same time.")
@click.option("--seconds", default=8.0, show_default=True, help="Length of one turn.")
@click.option("--rounds", default=3, show_default=True)
def main(
    url: str,
    username: str | None,
    samples: int,
    password: str,
    path: str,
    pace: int,
    clients: int,
    seconds: float,
    rounds: int,
) -> None:
    """Measure in turns, idle and under log-ins, and print a table in Markdown."""
    names = [username] if username else [username_of(n) for n in range(1, samples + 1)]
    if not names:
        raise click.UsageError("Give --username or --samples.")
    load = Load(url, path, pace, clients, seconds, [login_of(name, password) for name in names])
    click.echo("| round | log-ins/s | log-in p50, p99 | list idle p50, p99 | under log-ins | p99 |")
    click.echo("|---|---|---|---|---|---|")
    ratios, rates = [], []
    for number in range(1, rounds + 1):
        idle = asyncio.run(load.run(with_log_ins=False))
        busy = asyncio.run(load.run(with_log_ins=True))
        rates.append(len(busy.log_ins) / seconds)
        ratios.append(percentile(busy.lists, 99) / percentile(idle.lists, 99))
        click.echo(
            f"| {number} | {rates[-1]:.1f} | {spread(busy.log_ins)} | {spread(idle.lists)} "
            f"| {spread(busy.lists)} | {ratios[-1]:.2f} times |"
        )
        click.echo(f"{dict(idle.outcomes + busy.outcomes)}", err=True)
    click.echo(
        f"\nMedian: {statistics.median(rates):.1f} log-ins/s, "
        f"and the list's p99 is {statistics.median(ratios):.2f} times that without them."
    )


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


def spread(values: list[float]) -> str:
    """Median and 99th percentile, in milliseconds."""
    return f"{percentile(values, 50):.1f}, {percentile(values, 99):.1f} ms"


if __name__ == "__main__":
    main()
