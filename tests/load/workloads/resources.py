"""Memory of the servers, and what an idle worker and an idle nginx cost the database."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from statistics import median

import click
from sqlalchemy import URL

from tests.engines import connected
from tests.load.contestants import (
    WORKERS,
    Contestant,
)
from tests.load.database import Server
from tests.load.processes import proportional_bytes, resident_bytes, with_descendants
from tests.load.report import Results
from tests.load.ring import Ring, nginx_version
from tests.load.workloads.turns import Options, Turns, say
from tests.server.service import Connection

HELD = 1000
"""Connections of which the memory is measured; each has had one answer and stays open."""

HOLDERS = 10
"""So many of them are opened at a time."""

TIMEOUT_SECONDS = 120

IDLE_TURNS = 15
"""Duration of an idle measurement, in turns."""

ONE = "/api/products?limit=1"
SETTLE_SECONDS = 6
"""After the last request; a worker goes on polling for half a second, and nginx for five."""

MEGABYTE, KILOBYTE = 1e6, 1e3


async def memory(turns: Turns) -> None:
    """Compare the memory of a worker and of an open connection."""
    for name in turns.direct:
        contestant = turns.contestants[name]
        try:
            turns.record("memory", contestant, await _memory(contestant))
        except (click.ClickException, OSError, EOFError) as error:
            say(f"memory: {contestant.title}: {error!r}")


async def _memory(contestant: Contestant) -> dict[str, float]:
    """Return the memory of a contestant's processes, and of a connection if it keeps any open.

    Raises:
        click.ClickException: it does not answer 200.
        OSError, EOFError: it does not answer.
    """
    before = proportional_bytes(contestant.pids)
    held: list[Connection] = []

    async def hold(count: int) -> None:
        for _ in range(count):
            connection = await Connection.open(contestant.url)
            held.append(connection)
            answer = await connection.get(ONE)
            if answer.status != 200:
                raise click.ClickException(f"{contestant.title} answers {answer.status}.")

    try:
        # At once, because some close a connection that is idle for five seconds.
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await asyncio.gather(*(hold(HELD // HOLDERS) for _ in range(HOLDERS)))
        after = proportional_bytes(contestant.pids)
        still_open = sum(not each.reader.at_eof() for each in held)
        # The largest processes: a supervisor serves no requests. Threads share one process.
        sizes = sorted(map(resident_bytes, with_descendants(contestant.pids[0])))
    finally:
        for connection in held:
            await connection.close()
    values = {
        "MB a worker": median(sizes[-WORKERS:]) / MEGABYTE,
        "MB of all processes": after / MEGABYTE,
    }
    if still_open >= HELD // 2:
        values["kB a connection"] = (after - before) / still_open / KILOBYTE
    return values


async def idle(options: Options, server: Server, ring: Ring, results: Results) -> None:
    """Count the queries of idle workers, and of an idle nginx in front of them.

    They run alone: the server counts the statements of all its clients.
    """
    seconds = IDLE_TURNS * options.seconds
    rings = [ring]
    if options.against is not None:
        rings.append(ring.against(options.against))
    for each in rings:
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(server.another_database())
            own = replace(each, database=url)
            await own.fill(1000)
            catalog = await stack.enter_async_context(own.catalog())
            workers = await _queries_per_second(url, catalog, seconds)
            values = {"queries/s a worker": workers / WORKERS}
            if nginx_version():
                front = await stack.enter_async_context(own.behind_nginx(catalog))
                beside = await _queries_per_second(url, front, options.seconds)
                values["queries/s an nginx"] = max(0.0, beside - workers)
            results.titles[catalog.name] = catalog.title
            turns = Turns(options, {catalog.name: catalog}, results, ring.folder)
            turns.record("idle", catalog, values)


async def _queries_per_second(url: URL, contestant: Contestant, seconds: float) -> float:
    """Return the server's statements per second while a contestant is idle."""
    await contestant.quiet()
    await asyncio.sleep(SETTLE_SECONDS)
    say(f"{contestant.title} is idle for {seconds} s")
    began, before = time.monotonic(), await _statements(url)
    await asyncio.sleep(seconds)
    # Without those of counting: SHOW STATUS and what opens its connection.
    counted, counting = await _statements(url), await _statements(url)
    own = counting - counted
    return max(0, counted - before - own) / (time.monotonic() - began)


async def _statements(url: URL) -> int:
    async with connected(url) as cursor:
        await cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
        _, count = await cursor.fetchone()
    return int(count)
