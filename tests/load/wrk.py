"""Load by ``wrk``, on one contestant at a time, and what it has cost.

wrk keeps its connections busy: each asks again as soon as it is answered. The scripts that it
runs are written here.
"""

import asyncio
import json
import os
import random
import resource
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tests.load.contestants import Contestant

TIMEOUT_SECONDS = 10
"""An answer that takes longer counts as a failure and in no percentile."""

CREATES_EVERY = 20
"""One request in so many of the mix is a create."""

BODY = {
    "name": "Walnut lamp, 20 cm",
    "price": 24.9,
    "description": "Made of oak that ages well. Arrives within 2 days.",
}
"""As long as a sample product, so that a page of these is as long as one of those."""

_SETUP = """
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end
"""

# Whoever is refused is refused at once, so with a share s of refusals 99 % of what was accepted is
# within the percentile s + 0.99 (1 - s) of all: of what is above that, some may be refusals.
_DONE = """
function done(summary, latency, requests)
  local e = summary.errors
  local all = math.max(summary.requests, 1)
  local accepted = (e.status + 0.99 * (all - e.status)) / all
  io.write(string.format('\\n{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, '
    .. '"accepted_p99": %d, "refused": %d, "failed": %d}\\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(100 * accepted), e.status,
    e.connect + e.read + e.write + e.timeout))
end
"""

# Each page once before any comes again; each thread and each turn begins at another.
_RANDOM = """
local requests, at = {{}}, 0
function init(arguments)
  for path in io.lines({paths}) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
  math.randomseed(os.time() + 7919 * number)
  at = math.random(#requests)
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"""

_CREATE = """
wrk.method = "POST"
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = {authorization}
"""

_MIX = """
local page, create, at = nil, nil, 0
function init(arguments)
  page = wrk.format("GET", {path})
  create = wrk.format("POST", "/api/products",
    {{["Content-Type"] = "application/json", ["Authorization"] = {authorization},
      ["Host"] = wrk.headers["Host"]}}, {body})
end
function request()
  at = at + 1
  return at % {every} == 0 and create or page
end
"""

# wrk asks for the pause before it knows which connection it is for, so another connection than the
# one that was refused may pause; that as many pause as were refused is what matters.
_OBEDIENT = """
local refused, pause = 0, 0
function response(status, headers)
  if status == 503 then
    refused = refused + 1
    for name, value in pairs(headers) do
      if name:lower() == "retry-after" then pause = 1000 * tonumber(value) end
    end
  end
end
function delay()
  if refused == 0 then return 0 end
  refused = refused - 1
  return pause
end
"""


@dataclass(frozen=True)
class Script:
    """What to ask for.

    Attributes:
        path: the URL's path and query.
        text: Lua, besides what counts the answers.
    """

    path: str
    text: str = ""

    def obedient(self) -> "Script":
        """The same by clients that heed ``Retry-After``."""
        return Script(self.path, self.text + _OBEDIENT)


def page(path: str) -> Script:
    """The same page again and again."""
    return Script(path)


def random_pages(paths: Sequence[str], file: Path) -> Script:
    """All of these pages in an order that is the same for all, kept in a file."""
    shuffled = list(paths)
    random.Random(0).shuffle(shuffled)  # noqa: S311 (repeatable is what it must be)
    file.write_text("".join(f"{path}\n" for path in shuffled))
    return Script(paths[0], _SETUP + _RANDOM.format(paths=_quoted(str(file))))


def create(token: str) -> Script:
    """A new product each time."""
    return Script("/api/products", _CREATE.format(**_creating(token)))


def mix(path: str, token: str) -> Script:
    """The same page, and a new product now and then."""
    return Script(path, _MIX.format(path=_quoted(path), every=CREATES_EVERY, **_creating(token)))


def _creating(token: str) -> dict[str, str]:
    return {"body": _quoted(json.dumps(BODY)), "authorization": _quoted(f"Bearer {token}")}


def _quoted(text: str) -> str:
    # What JSON escapes, Lua escapes alike; neither slashes nor anything beyond ASCII is in it.
    return json.dumps(text)


@dataclass(frozen=True)
class Measured:
    """One turn of one contestant.

    Attributes:
        requests: answered, whatever the status.
        seconds: how long it took.
        cpu_us: microseconds of CPU a request, of the contestant's processes.
        machine_us: the same of the whole machine without wrk, so with the database.
        p50: milliseconds, of all answers.
        p99: the same.
        accepted_p99: milliseconds, of the answers that are no refusals; an upper bound.
        refused: answers with a status of 400 or more.
        failed: connections that were refused or broke, and answers that came too late.
    """

    requests: int
    seconds: float
    cpu_us: float
    machine_us: float
    p50: float
    p99: float
    accepted_p99: float
    refused: int
    failed: int

    @property
    def rate(self) -> float:
        """Answers a second that are no refusals."""
        return (self.requests - self.refused) / self.seconds


async def busy() -> float:
    """The share of this machine's cores that others use."""
    before = _of_machine()
    await asyncio.sleep(1)
    return (_of_machine() - before) / (os.cpu_count() or 1)


async def load(
    contestant: Contestant, script: Script, *, connections: int, seconds: int, folder: Path
) -> Measured:
    """Let wrk ask for a while.

    Raises:
        click.ClickException: wrk did not end well.
    """
    file = folder / "script.lua"
    file.write_text(script.text + _DONE)
    command = [
        *("wrk", f"-t{threads_for(connections)}", f"-c{connections}", f"-d{seconds}s"),
        *(f"--timeout={TIMEOUT_SECONDS}s", "-s", str(file), contestant.url + script.path),
    ]
    own, wrk, machine = contestant.cpu_seconds(), _of_children(), _of_machine()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    finally:
        # Ctrl-C ends the load too, and not only the wait for it.
        if process.returncode is None:
            process.kill()
    own = contestant.cpu_seconds() - own
    machine = _of_machine() - machine - (_of_children() - wrk)
    try:
        told = json.loads(output.decode().splitlines()[-1])
    except (ValueError, IndexError):
        raise click.ClickException(f"wrk printed something else:\n{output.decode()}") from None
    requests = max(told["requests"], 1)
    return Measured(
        requests=told["requests"],
        seconds=told["microseconds"] / 1e6,
        cpu_us=own / requests * 1e6,
        machine_us=machine / requests * 1e6,
        p50=told["p50"] / 1000,
        p99=told["p99"] / 1000,
        accepted_p99=told["accepted_p99"] / 1000,
        refused=told["refused"],
        failed=told["failed"],
    )


def threads_for(connections: int) -> int:
    """How many of wrk's threads it takes; more would take the cores from who is measured."""
    return 1 if connections <= 512 else 2


def require_wrk(connections: int) -> None:
    """See that there is wrk, and that so many connections can be opened at once.

    Raises:
        click.ClickException: there is not, or they cannot.
    """
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk is not installed.")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Handed on to whatever is started here: servers need as many.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # nginx opens two for a client whose page it does not have.
    if hard != resource.RLIM_INFINITY and 2 * connections + 200 > hard:
        raise click.ClickException(
            f"A process may open {hard} files and {connections} connections take more; see ulimit."
        )
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if 2 * connections > last - first:
        raise click.ClickException(f"There are {last - first} local ports, which is too few.")


def _of_children() -> float:
    """CPU seconds of wrk: of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _of_machine() -> float:
    """CPU seconds that the whole machine has worked."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _wait, irq, softirq = map(int, line.split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
