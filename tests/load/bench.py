"""Benchmark of the service against its peers: ``./build.sh bench``.

All servers run on one database and take turns, in several rounds; only the ratio within a round
counts, because machines are noisy. Everything runs on this machine.
"""

import asyncio
import json
import os
import platform
import re
import secrets
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from catalog.auth.seed_data import username_of
from tests.load import clients, wrk
from tests.load.contestants import (
    BEHIND_NGINX,
    CATALOG,
    EARLIER,
    EARLIER_BEHIND_NGINX,
    FILE,
    HOT_PATH,
    LIMIT,
    PASSWORD,
    WORKERS,
    Contestant,
    Ring,
    nginx_version,
)
from tests.load.database import Server, database_server
from tests.load.h2load import Streams
from tests.load.measured import Measured, Traffic, busy
from tests.load.report import TITLES, LogIns, Overload, Results, Turn
from tests.load.sign_in import Load, login_of, percentile
from tests.load.stacks import PEERS, versions_of
from tests.load.wrk import Script
from tests.server.nginx import has_njs

WORKLOADS = tuple(TITLES)
"""In the order of their runs: workloads that write come last, so that the first page still equals
nginx's file."""

IDLE_SECONDS = 3

ACCOUNTS = 300

PLACES = 5000
"""Number of random pages; a turn of some seconds requests few of them twice."""

BUSY = 0.05
"""Share of the machine's CPU in use before the start, above which the report says so."""

PEAK_CONNECTIONS = 64
OVERLOAD = 10
RECOVERY_PATIENCE_SECONDS = 30

MOST_CONNECTIONS = 10_000
MOST_TLS_CONNECTIONS = 512
"""Maximum; more connections would spend most of a turn on handshakes."""

LOG_IN_CLIENTS = 4
LISTS_A_SECOND = 50


@dataclass(frozen=True)
class Options:
    """Settings of a measurement."""

    products: int
    rounds: int
    seconds: int
    connections: tuple[int, ...]
    workloads: tuple[str, ...]
    peers: tuple[str, ...]
    earlier: Path | None = None


@click.command()
@click.option("--url", help="DATABASE_URL of an empty MySQL or MariaDB; without it one is started.")
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    type=click.Choice(WORKLOADS),
    help="All but size unless told, which fills two more databases: with a tenth of the products,"
    " and with ten times as many.",
)
@click.option(
    "--peer", "peers", multiple=True, type=click.Choice(list(PEERS)), help="All unless told."
)
@click.option(
    "--connections",
    multiple=True,
    type=click.IntRange(1, MOST_CONNECTIONS),
    help="64, 512 and 5,000 unless told.",
)
@click.option(
    "--earlier",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="A clone of another release, set up by its own ./build.sh, to be measured beside.",
)
@click.option("--products", default=100_000, show_default=True, help="In the database at first.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 20))
@click.option(
    "--seconds", default=8, show_default=True, type=click.IntRange(1, 60), help="Of one turn."
)
@click.option("--write", is_flag=True, help="Write docs/performance.md's tables, and its chart.")
@click.option("--peers-python", required=True, hidden=True)
def main(url: str | None, write: bool, peers_python: str, **given: Any) -> None:
    """Measure the service against its peers, and print tables in Markdown.

    Repeat --workload, --peer and --connections for several. The database is MySQL if installed,
    else MariaDB; CATALOG_TEST_NGINX names an nginx with njs if the system has none.
    """
    options = Options(**given)
    options = replace(
        options,
        workloads=options.workloads or tuple(each for each in WORKLOADS if each != "size"),
        peers=options.peers or tuple(PEERS),
        connections=options.connections or (64, 512, 5000),
    )
    # SIGTERM stops all started servers, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    clients.require(max(*options.connections, OVERLOAD * PEAK_CONNECTIONS))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
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
        _say("Starting the database")
        server = await stack.enter_async_context(database_server(url, folder))
        ring = Ring(server.url, secrets.token_hex(32), peers_python, folder)
        results.facts += _facts(options, server, peers_python)
        if others > BUSY:
            results.facts.append(f"others used {others:.0%} of the machine when it began")
            _say(results.facts[-1])
        if set(options.workloads) - {"size"}:
            contestants = await _start(stack, ring, options, server)
            results.facts += [_weigh(contestants), await _idle(contestants)]
            results.titles = {each.name: each.title for each in contestants.values()}
            await Bench(options, contestants, results, folder).run()
        if "size" in options.workloads:
            await _compare_sizes(options, server, ring, results)


async def _start(
    stack: AsyncExitStack, ring: Ring, options: Options, server: Server
) -> dict[str, Contestant]:
    """Fill the database and start all contestants."""
    await _fill(ring, options.products)
    _say("Starting the servers")
    catalog = await stack.enter_async_context(ring.catalog())
    found = [catalog]
    if nginx_version():
        front = await stack.enter_async_context(ring.behind_nginx(catalog))
        found = [front, catalog]
    if options.earlier is not None:
        # The other release may have another schema.
        url = await stack.enter_async_context(server.another_database())
        own = replace(ring, database=url, checkout=options.earlier)
        await _fill(own, options.products)
        earlier = await stack.enter_async_context(own.catalog())
        if nginx_version():
            found.append(await stack.enter_async_context(own.behind_nginx(earlier)))
        found.append(earlier)
    for name in options.peers:
        if missing := PEERS[name].is_missing():
            _say(f"SKIPPED: {PEERS[name].title}: {missing}")
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


async def _fill(ring: Ring, products: int) -> None:
    _say(f"Filling it with {products:,} products")
    await ring.run_catalog("migrate")
    counts = ["--users", str(ACCOUNTS), "--products", str(products)]
    await ring.run_catalog("seed", *counts, "--password", PASSWORD)


class Bench:
    """Turns of contestants on workloads.

    Args:
        options: settings of the measurement.
        contestants: by name, in the order of their turns.
        results: where to record measurements.
        folder: for scripts.
    """

    def __init__(
        self,
        options: Options,
        contestants: Mapping[str, Contestant],
        results: Results,
        folder: Path,
    ) -> None:
        self._options = options
        self._contestants = contestants
        self._results = results
        self._folder = folder
        self._random: dict[str, Script] = {}
        self._tokens: dict[str, str] = {}

    async def run(self) -> None:
        """Run the selected workloads."""
        direct = self._present(CATALOG, EARLIER, *self._options.peers)
        editing = [name for name in direct if name not in PEERS or PEERS[name].edits]
        mixed = self._present(BEHIND_NGINX, EARLIER_BEHIND_NGINX, *self._options.peers)
        if BEHIND_NGINX not in self._contestants:
            mixed = direct
        runs: dict[str, Callable[[], Awaitable[None]]] = {
            "hot": partial(self._rates, "hot", list(self._contestants), self._hot),
            "random": partial(self._rates, "random", direct, self._random_pages),
            "logins": self._log_ins,
            "overload": partial(self._overload, direct),
            "one": partial(self._rates, "one", editing, self._one),
            "create": partial(self._rates, "create", direct, self._create),
            "edit": partial(self._rates, "edit", editing, self._edit),
            "mix": partial(self._rates, "mix", mixed, self._mix),
            "tls": self._over_tls,
        }
        for workload, run in runs.items():
            if workload in self._options.workloads:
                await run()

    def _present(self, *names: str) -> list[str]:
        return [name for name in names if name in self._contestants]

    def _hot(self, _contestant: Contestant) -> Script:
        return wrk.page(HOT_PATH)

    def _random_pages(self, contestant: Contestant) -> Script:
        if contestant.name not in self._random:
            _say(f"Walking through {contestant.title}")
            paths = places_of(contestant, self._options.products)
            file = self._folder / f"{contestant.name}.paths"
            self._random[contestant.name] = wrk.random_pages(paths, file)
        return self._random[contestant.name]

    def _one(self, _contestant: Contestant) -> Script:
        last = self._options.products
        paths = [f"/api/products/{number}" for number in range(1, last, -(-last // PLACES))]
        return wrk.random_pages(paths, self._folder / "one.paths")

    def _edit(self, contestant: Contestant) -> Script:
        """Change products of the account whose token is sent; all servers have the same ones."""
        service = self._contestants.get(CATALOG) or self._contestants[EARLIER]
        listed = service.ask("/api/products?user_id=1&fields=id&limit=1000")
        paths = [f"/api/products/{each['id']}" for each in json.loads(listed)["products"]]
        file = self._folder / "edit.paths"
        return wrk.edit(paths, self._token(contestant), file)

    def _create(self, contestant: Contestant) -> Script:
        return wrk.create(self._token(contestant))

    def _mix(self, contestant: Contestant) -> Script:
        return wrk.mix(HOT_PATH, self._token(contestant))

    def _token(self, contestant: Contestant) -> str:
        if contestant.name not in self._tokens:
            self._tokens[contestant.name] = contestant.token()
        return self._tokens[contestant.name]

    async def _over_tls(self) -> None:
        """Compare cached pages and the file, both served by nginx over TLS."""
        names = self._present(BEHIND_NGINX, EARLIER_BEHIND_NGINX, FILE)
        await self._rates("tls", names, lambda _: Streams(HOT_PATH), most=MOST_TLS_CONNECTIONS)

    async def _rates(
        self,
        workload: str,
        names: list[str],
        traffic_for: Callable[[Contestant], Traffic],
        *,
        most: int = MOST_CONNECTIONS,
    ) -> None:
        """Let contestants take turns, with few and with many connections."""
        contestants = [self._contestants[name] for name in names]
        traffic = {each.name: traffic_for(each) for each in contestants}
        for each in contestants:
            await self._warm_up(each, traffic[each.name])
        for connections in (each for each in self._options.connections if each <= most):
            for number in range(1, self._options.rounds + 1):
                # Rotate the order, so that after-effects of a turn do not always hit the same one.
                first = number % len(contestants)
                for each in (*contestants[first:], *contestants[:first]):
                    measured = await self._turn(each, traffic[each.name], connections)
                    self._results.turns.append(
                        Turn(workload, connections, number, each.name, measured)
                    )
                    _tell(f"{workload}, {connections:,}, round {number}", each, measured)

    async def _warm_up(self, contestant: Contestant, traffic: Traffic) -> None:
        """Let a contestant open its database connections and do its one-time initialization."""
        await self._turn(contestant, traffic, PEAK_CONNECTIONS, seconds=1)

    async def _turn(
        self, contestant: Contestant, traffic: Traffic, connections: int, *, seconds: int = 0
    ) -> Measured | None:
        """Measure a contestant under load and wait until it is idle; None if it failed."""
        measured = await self._flood(contestant, traffic, connections, seconds=seconds)
        await contestant.quiet()
        return measured

    async def _flood(
        self, contestant: Contestant, traffic: Traffic, connections: int, *, seconds: int = 0
    ) -> Measured | None:
        """Measure a contestant under load, without waiting until it is idle; None if it failed."""
        try:
            return await traffic.put_on(
                contestant,
                connections=connections,
                seconds=seconds or self._options.seconds,
                folder=self._folder,
            )
        except (click.ClickException, OSError) as error:
            _say(f"{contestant.title}: {error}")
            return None

    async def _log_ins(self) -> None:
        names = self._present(CATALOG, EARLIER, "obvious")
        requests = [login_of(username_of(number), PASSWORD) for number in range(1, ACCOUNTS + 1)]
        for number in range(1, self._options.rounds + 1):
            for name in names:
                load = Load(
                    self._contestants[name].url,
                    HOT_PATH,
                    LISTS_A_SECOND,
                    LOG_IN_CLIENTS,
                    self._options.seconds,
                    requests,
                )
                try:
                    alone = await load.run(with_log_ins=False)
                    beside = await load.run(with_log_ins=True)
                except (OSError, EOFError) as error:
                    _say(f"{self._contestants[name].title}: {error!r}")
                    continue
                outcomes = alone.outcomes + beside.outcomes
                wrong = sum(outcomes.values()) - outcomes["list 200"] - outcomes["log-in 200"]
                self._results.log_ins.append(
                    LogIns(
                        name=name,
                        rate=len(beside.log_ins) / self._options.seconds,
                        p50=percentile(beside.log_ins, 50),
                        p99=percentile(beside.log_ins, 99),
                        calm_p99=percentile(alone.lists, 99),
                        list_p50=percentile(beside.lists, 50),
                        list_p99=percentile(beside.lists, 99),
                        failed=wrong,
                    )
                )
                _say(f"logins, round {number}: {self._contestants[name].title}")

    async def _overload(self, names: list[str]) -> None:
        for number in range(1, self._options.rounds + 1):
            for name in names:
                contestant = self._contestants[name]
                script = self._random_pages(contestant)
                await self._warm_up(contestant, script)
                for obedient in (True, False):
                    calm = max(_seconds_of(contestant, script.path) or 1 for _ in range(20))
                    peak = await self._turn(contestant, script, PEAK_CONNECTIONS)
                    asked = script.obedient() if obedient else script
                    measured = await self._flood(contestant, asked, OVERLOAD * PEAK_CONNECTIONS)
                    recovery = await _recovery(contestant, script.path, calm)
                    await contestant.quiet()
                    _tell(f"overload, round {number}", contestant, measured)
                    if peak and measured and peak.rate:
                        self._results.overloads.append(
                            Overload(name, obedient, peak.rate, measured, recovery)
                        )


def places_of(contestant: Contestant, products: int) -> list[str]:
    """Return paths of pages all over the list, by the server's own cursors."""
    step = min(max(products // PLACES, 1), LIMIT)
    # The last pages have fewer products than the others.
    wanted = max(min(PLACES, products // step) - LIMIT // step, 1)
    paths: list[str] = []
    path = f"/api/products?limit={step}"
    while path and len(paths) < wanted:
        path = json.loads(contestant.ask(path))["next"]
        if path:
            paths.append(re.sub(r"\blimit=\d+", f"limit={LIMIT}", path))
    return paths


async def _recovery(contestant: Contestant, path: str, calm: float) -> float | None:
    """Return the seconds until three normal latencies in a row; None after a time-out."""
    began = time.monotonic()
    first, good = began, 0
    while time.monotonic() - began < RECOVERY_PATIENCE_SECONDS:
        asked = time.monotonic()
        seconds = _seconds_of(contestant, path)
        if seconds is not None and seconds <= max(2 * calm, 0.02):
            first = first if good else asked
            good += 1
            if good == 3:
                return first - began
        else:
            good = 0
        await asyncio.sleep(0.05)
    return None


def _seconds_of(contestant: Contestant, path: str) -> float | None:
    """Return the latency of a request in seconds; None if it fails."""
    began = time.monotonic()
    try:
        contestant.ask(path)
    except OSError:
        return None
    return time.monotonic() - began


async def _compare_sizes(options: Options, server: Server, ring: Ring, results: Results) -> None:
    """Compare the service on few products and on many, in turns."""
    async with AsyncExitStack() as stack:
        benches: dict[int, tuple[Bench, Results]] = {}
        for products in (max(options.products // 10, 1), options.products * 10):
            url = await stack.enter_async_context(server.another_database())
            own = replace(ring, database=url)
            await _fill(own, products)
            catalog = await stack.enter_async_context(own.catalog())
            catalog = replace(catalog, title=f"the service with {products:,} products")
            folder = ring.folder / str(products)
            folder.mkdir()
            told = Results([], {})
            chosen = replace(
                options,
                products=products,
                rounds=1,
                connections=options.connections[:1],
                workloads=("hot", "random"),
                peers=(),
            )
            benches[products] = Bench(chosen, {CATALOG: catalog}, told, folder), told
        for _ in range(options.rounds):
            for bench, _told in benches.values():
                await bench.run()
        for products, (_bench, told) in benches.items():
            results.sizes += [(products, turn) for turn in told.turns]


def _facts(options: Options, server: Server, peers_python: str) -> list[str]:
    connections = ", ".join(f"{each:,}" for each in options.connections)
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


def _tell(turn: str, contestant: Contestant, measured: Measured | None) -> None:
    if measured:
        rate = f"{measured.rate:,.0f}/s, p99 {measured.p99:,.0f} ms"
        _say(f"{turn}: {contestant.title}: {rate}")


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
