"""The service against the obvious implementation, in turns, for the scripts beside this one.

Both run two workers against the same database on this machine, one after the other, several
times; what counts is the ratio within a round, because machines are noisy. Needs ``wrk``.
"""

import os
import re
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import click

WORKERS = 2
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Contestant:
    """A server under load: what it is called, its process and where it listens."""

    name: str
    pid: int
    url: str


@dataclass(frozen=True)
class Measured:
    """One turn: requests/s, CPU of the server in microseconds a request, p99, answers not 2xx."""

    rate: float
    cpu_us: float
    p99: str
    refused: int


Prepare = Callable[[Contestant], list[str]]
"""Gets a contestant ready for its turns, and tells the options of wrk and the URL."""


def compete(
    url: str, prepare: Prepare, *, connections: int, seconds: int, rounds: int, loop: str
) -> None:
    """Let both take turns, and print a table in Markdown.

    Args:
        url: ``DATABASE_URL`` of a database with the service's tables.
        prepare: what to do before the first turn of each, and what to ask for.
        connections: of the load.
        seconds: the length of one turn.
        rounds: turns of each.
        loop: the obvious implementation's event loop; asyncio is hypercorn's own choice.
    """
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk is not installed.")
    environment = environment_for(url)
    with ExitStack() as stack:
        contestants = [
            stack.enter_context(_serving("catalog", _catalog, environment)),
            stack.enter_context(_serving("obvious", partial(_obvious, loop), environment)),
        ]
        requests = {each.name: prepare(each) for each in contestants}
        turns: dict[str, list[Measured]] = {each.name: [] for each in contestants}
        for _ in range(rounds):
            for each in contestants:
                turns[each.name].append(_load(each, requests[each.name], connections, seconds))
    _report(turns)


def environment_for(url: str) -> dict[str, str]:
    """What the service's commands need to work on that database."""
    return {**os.environ, "DATABASE_URL": url, "JWT_SECRET_KEY": secrets.token_hex(32)}


def run_catalog(environment: dict[str, str], *command: str) -> None:
    """Run one of the service's commands to its end."""
    arguments = [sys.executable, "-m", "catalog", *command]
    subprocess.run(arguments, env=environment, check=True, stdout=subprocess.DEVNULL)


def options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both scripts have."""
    for option in (
        click.option(
            "--loop",
            default="asyncio",
            show_default=True,
            type=click.Choice(["asyncio", "uvloop"]),
            help="The obvious implementation's event loop; asyncio is hypercorn's own choice.",
        ),
        click.option("--rounds", default=5, show_default=True),
        click.option("--seconds", default=8, show_default=True, help="Length of one turn."),
        click.option("--connections", default=64, show_default=True),
        click.option("--url", required=True, help="DATABASE_URL of a database that may be filled."),
    ):
        command = option(command)
    return command


def _catalog(port: int) -> list[str]:
    bind = ["--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS)]
    return [sys.executable, "-m", "catalog", "serve", *bind]


def _obvious(loop: str, port: int) -> list[str]:
    options = ["-w", str(WORKERS), "-k", loop, "-b", f"127.0.0.1:{port}"]
    hypercorn = str(Path(sys.executable).with_name("hypercorn"))
    return [hypercorn, *options, "tests.load.obvious:app"]


@contextmanager
def _serving(
    name: str, command: Callable[[int], list[str]], environment: dict[str, str]
) -> Iterator[Contestant]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The obvious one takes the URL as it is; the service understands the driver's name too.
    url = re.sub(r"^(mysql|mariadb)(\+\w+)?:", "mysql+aiomysql:", environment["DATABASE_URL"])
    process = subprocess.Popen(
        command(port),
        env={**environment, "DATABASE_URL": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        contestant = Contestant(name, process.pid, f"http://127.0.0.1:{port}")
        _await_answer(process, contestant)
        yield contestant
    finally:
        process.terminate()
        process.wait(30)


def _await_answer(process: subprocess.Popen[bytes], contestant: Contestant) -> None:
    deadline = time.monotonic() + START_PATIENCE_SECONDS
    while True:
        try:
            with urlopen(f"{contestant.url}/api/products", timeout=5):  # noqa: S310 (our own)
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise click.ClickException(f"{process.args!r} does not answer.") from None
            time.sleep(0.2)


def _load(contestant: Contestant, request: list[str], connections: int, seconds: int) -> Measured:
    before = cpu_seconds(contestant.pid)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *request]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(contestant.pid) - before
    requests = int(_found(r"(\d+) requests in", printed))
    return Measured(
        rate=float(_found(r"Requests/sec:\s+([\d.]+)", printed)),
        cpu_us=used / requests * 1e6,
        p99=_found(r"99%\s+(\S+)", printed),
        refused=int(_found(r"Non-2xx or 3xx responses: (\d+)", printed, missing="0")),
    )


def _found(pattern: str, text: str, *, missing: str | None = None) -> str:
    match = re.search(pattern, text)
    if match:
        return match.group(1)
    if missing is None:
        raise click.ClickException(f"wrk printed something else:\n{text}")
    return missing


def cpu_seconds(pid: int) -> float:
    """What a process and its descendants have used so far."""
    ticks = 0
    for each in _with_descendants(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SECOND


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _with_descendants(int(child))


def _report(turns: dict[str, list[Measured]]) -> None:
    click.echo("| implementation | requests/s | CPU µs/request | p99 | not 2xx |")
    click.echo("|---|---|---|---|---|")
    for name, measured in turns.items():
        rates = ", ".join(f"{each.rate:.0f}" for each in measured)
        cpu = statistics.median(each.cpu_us for each in measured)
        tails = ", ".join(each.p99 for each in measured)
        refused = sum(each.refused for each in measured)
        click.echo(f"| {name} | {rates} | {cpu:.0f} | {tails} | {refused} |")
    pairs = list(zip(turns["catalog"], turns["obvious"], strict=True))
    rate = statistics.median(ours.rate / theirs.rate for ours, theirs in pairs)
    cpu = statistics.median(theirs.cpu_us / ours.cpu_us for ours, theirs in pairs)
    click.echo(f"\nMedian over {len(pairs)} rounds: {rate:.2f} times the requests/s, ", nl=False)
    click.echo(f"{cpu:.2f} times as many requests for the same CPU time.")
