"""Benchmark of the service against its peers: ``./build.sh bench``.

All servers run on one database and take turns, in several rounds; only the ratio within a round
counts, because machines are noisy. Everything runs on this machine. What the servers are asked for
is in ``tests/load/workloads/``.
"""

import asyncio
import json
import os
import platform
import secrets
import signal
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tests.load import clients
from tests.load.contestants import (
    BEHIND_NGINX,
    CATALOG,
    EARLIER,
    HOT_PATH,
    LIMIT,
    WORKERS,
    Contestant,
)
from tests.load.database import Server, database_server
from tests.load.measured import busy
from tests.load.profiling import DRAWN, PROFILED, profile
from tests.load.report import Results
from tests.load.ring import Ring, nginx_version
from tests.load.stacks import PEERS, versions_of
from tests.load.workloads import APART, WORKLOADS
from tests.load.workloads.overload import OVERLOAD
from tests.load.workloads.resources import idle
from tests.load.workloads.sizes import size
from tests.load.workloads.turns import (
    MANY,
    MOST_CONNECTIONS,
    PEAK_CONNECTIONS,
    Options,
    Turns,
    say,
)
from tests.server.nginx import has_njs

IDLE_SECONDS = 3

BUSY = 0.05
"""Share of the machine's CPU in use before the start, above which the report says so."""


@click.command()
@click.option("--url", help="DATABASE_URL of an empty MySQL or MariaDB; without it one is started.")
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    type=click.Choice([*WORKLOADS, *APART]),
    help="By default all but size, which fills two more databases: with a tenth of the products,"
    " and with ten times as many.",
)
@click.option(
    "--peer", "peers", multiple=True, type=click.Choice(list(PEERS)), help="By default all."
)
@click.option(
    "--connections",
    multiple=True,
    type=click.IntRange(1, MOST_CONNECTIONS),
    help="By default 64; with some workloads also 512, and with some of these 5,000.",
)
@click.option(
    "--against",
    help="A commit of the service to be measured beside, with the packages of this environment; or"
    " the folder of another release, set up by its own ./build.sh.",
)
@click.option("--products", default=100_000, show_default=True, help="In the database at first.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 20))
@click.option(
    "--seconds", default=3, show_default=True, type=click.IntRange(1, 60), help="Of one turn."
)
@click.option("--write", is_flag=True, help="Write docs/performance.md's tables, and its chart.")
@click.option(
    "--profile",
    "is_profile",
    is_flag=True,
    help="Instead, draw what a worker does under each workload, in docs/performance/.",
)
@click.option("--peers-python", required=True, hidden=True)
def main(url: str | None, write: bool, is_profile: bool, peers_python: str, **given: Any) -> None:
    """Measure the service against its peers, and print tables in Markdown.

    Repeat --workload, --peer and --connections for several. The database is MySQL if installed,
    else MariaDB; CATALOG_TEST_NGINX names an nginx with njs if the system has none.
    """
    options = Options(**given)
    options = replace(
        options,
        workloads=options.workloads or (PROFILED if is_profile else (*WORKLOADS, "idle")),
        peers=() if is_profile else options.peers or tuple(PEERS),
    )
    if is_profile and (others := set(options.workloads) - {*DRAWN}):
        raise click.UsageError(f"--profile cannot draw {', '.join(sorted(others))}.")
    # SIGTERM stops all started servers, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    clients.require(max(*(options.connections or MANY), OVERLOAD * PEAK_CONNECTIONS))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if is_profile:
            asyncio.run(draw(options, url, peers_python, Path(folder)))
            return
        results = Results([], {})
        try:
            asyncio.run(measure(options, url, peers_python, Path(folder), results))
        finally:
            # Also prints partial results after an interruption.
            click.echo(results.markdown())
    if write:
        results.write(peers_python)


async def measure(
    options: Options, url: str | None, peers_python: str, folder: Path, results: Results
) -> None:
    """Start the servers, and let all take turns."""
    async with AsyncExitStack() as stack:
        others = await busy()
        say("Starting the database")
        server = await stack.enter_async_context(database_server(url, folder))
        ring = Ring(server.url, secrets.token_hex(32), peers_python, folder)
        results.facts += _facts(options, server, peers_python)
        if others > BUSY:
            results.facts.append(f"others used {others:.0%} of the machine when it began")
            say(results.facts[-1])
        if "idle" in options.workloads:
            await idle(options, server, ring, results)
        if set(options.workloads) - {*APART}:
            contestants = await _start(stack, ring, options, server)
            results.facts += [_weigh(contestants), await _idle(contestants)]
            results.titles |= {each.name: each.title for each in contestants.values()}
            turns = Turns(options, contestants, results, folder)
            for name, run in WORKLOADS.items():
                if name in options.workloads:
                    try:
                        await run(turns)
                    except (click.ClickException, OSError, EOFError) as error:
                        # The others' results are worth keeping.
                        results.facts.append(f"`{name}` could not be measured to its end")
                        say(f"{name}: {error!r}")
        if "size" in options.workloads:
            await size(options, server, ring, results)


async def draw(options: Options, url: str | None, peers_python: str, folder: Path) -> None:
    """Start the service, and profile it under each workload."""
    async with AsyncExitStack() as stack:
        say("Starting the database")
        server = await stack.enter_async_context(database_server(url, folder))
        ring = Ring(server.url, secrets.token_hex(32), peers_python, folder)
        await profile(options, await _start(stack, ring, options, server), peers_python, folder)


async def _start(
    stack: AsyncExitStack, ring: Ring, options: Options, server: Server
) -> dict[str, Contestant]:
    """Fill the database and start all contestants."""
    say(f"Filling it with {options.products:,} products")
    await ring.fill(options.products)
    say("Starting the servers")
    catalog = await stack.enter_async_context(ring.catalog())
    found = [catalog]
    if nginx_version():
        front = await stack.enter_async_context(ring.behind_nginx(catalog))
        found = [front, catalog]
    if "log" in options.workloads:
        found.append(await stack.enter_async_context(ring.catalog(has_log=True)))
    if options.against is not None:
        # Another release may have another schema.
        url = await stack.enter_async_context(server.another_database())
        own = replace(ring, database=url).against(options.against)
        await own.fill(options.products)
        earlier = await stack.enter_async_context(own.catalog())
        if nginx_version():
            found.append(await stack.enter_async_context(own.behind_nginx(earlier)))
        found.append(earlier)
    for name in options.peers:
        if missing := PEERS[name].is_missing():
            say(f"SKIPPED: {PEERS[name].title}: {missing}")
            continue
        found.append(await stack.enter_async_context(ring.peer(name)))
    if nginx_version():
        found.append(await stack.enter_async_context(ring.file(catalog)))
    return {each.name: each for each in found}


def _weigh(contestants: Mapping[str, Contestant]) -> str:
    """Describe the sizes of the first pages.

    Raises:
        click.ClickException: the servers show different products.
    """
    pages = {each.title: each.ask(HOT_PATH) for each in contestants.values()}
    products = {title: json.loads(page)["products"] for title, page in pages.items()}
    for title, shown in products.items():
        expected = products[contestants[CATALOG].title]
        for field in ("id", "name", "description", "price", "user_id", "version"):
            if [each[field] for each in shown] != [each[field] for each in expected]:
                raise click.ClickException(f"{title} shows another {field} than the service.")
    lengths = sorted(map(len, pages.values()))
    return f"a page is {lengths[0]:,} to {lengths[-1]:,} bytes long, as each server writes it"


async def _idle(contestants: Mapping[str, Contestant]) -> str:
    """Describe the CPU use of all servers while idle, which burdens every turn."""
    # nginx's CPU time includes that of the service behind it.
    twice = {CATALOG, EARLIER} if BEHIND_NGINX in contestants else set()
    servers = [each for each in contestants.values() if each.name not in twice]
    before = sum(each.cpu_seconds() for each in servers)
    await asyncio.sleep(IDLE_SECONDS)
    used = sum(each.cpu_seconds() for each in servers) - before
    return f"all servers stay up; idle, they use {used / IDLE_SECONDS:.0%} of one core together"


def _facts(options: Options, server: Server, peers_python: str) -> list[str]:
    connections = ", ".join(f"{each:,}" for each in options.connections or MANY)
    machine = f"{len(os.sched_getaffinity(0))} cores, shared with the database and the clients"
    facts = [
        f"{server.version}; {options.products:,} products, pages of {LIMIT}",
        f"{machine}; Python {platform.python_version()}; {WORKERS} workers of each server",
        f"turns of {options.seconds} s in {options.rounds} rounds, and medians of them;"
        f" {connections} connections that ask again as soon as they are answered",
        "the service without limits and, like its peers, without an access log",
    ]
    if nginx_version():
        cache = "" if has_njs() else ", without njs and so without its cache"
        facts.append(f"nginx {nginx_version()}{cache}")
    else:
        facts.append("without nginx, which is not there")
    peers = [PEERS[name] for name in options.peers if not PEERS[name].is_missing()]
    return [*facts, *(f"{peer.title}: {versions_of(peer, peers_python)}" for peer in peers)]


if __name__ == "__main__":
    main()
