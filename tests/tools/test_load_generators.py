"""Load generators with their default options count no failure, straight and through nginx.

``fetch_load_generators.sh`` installs them; tests of missing ones are skipped with their names.
"""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from tests.load.tls import certify, listener
from tests.server.nginx import free_ports, needs_cache, nginx, own_folder
from tests.server.service import Catalog

PLACES = (
    f"{Path(__file__).parent}/node_modules/.bin",
    f"{sys.prefix}-load/bin",
    # Node.js may be a package of the environment.
    f"{sys.prefix}/bin",
    os.environ.get("PATH", ""),
)
REQUESTS = 300
PATH = "/api/products?limit=2"

pytestmark = [needs_cache, pytest.mark.generators]

Way = Literal["straight", "nginx", "tls"]


class Site(NamedTuple):
    """Addresses of the service: straight, through nginx, and through nginx with TLS."""

    straight: str
    nginx: str
    tls: str

    def url(self, way: Way) -> str:
        return {"straight": self.straight, "nginx": self.nginx, "tls": self.tls}[way]


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    catalog = Catalog(tmp_path_factory.mktemp("site"))
    with free_ports(1) as (port,):
        pass
    with own_folder() as folder:
        certify(folder)

        def with_tls(text: str) -> str:
            return text.replace("# For TLS, with", f"{listener(folder, port)}\n# For TLS, with")

        async with catalog.start("--workers=1", CATALOG_ACCESS_LOG="off") as service:
            await service.serving()
            await service.sign_up()
            async with nginx(service.url, edit=with_tls) as proxy:
                yield Site(service.url, proxy.url, f"https://127.0.0.1:{port}")


async def run(name: str, *arguments: str, folder: Path) -> str:
    """Run a load generator, and return what it prints.

    Raises:
        pytest.skip.Exception: it is not installed.
    """
    path = os.pathsep.join(PLACES)
    program = shutil.which(name, path=path)
    if program is None:
        pytest.skip(f"{name} is not there: tests/tools/fetch_load_generators.sh installs it")
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=folder,
        # Some keep settings and reports at home, or send statistics.
        env={
            **os.environ,
            "PATH": path,
            "HOME": str(folder),
            "ARTILLERY_DISABLE_TELEMETRY": "true",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(90):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    assert process.returncode == 0, text
    return text


def number(pattern: str, text: str) -> int:
    """Return a number in an output; 0 if it is not printed."""
    found = re.search(pattern, text)
    return int(float(found[1])) if found else 0


class Tally(NamedTuple):
    """Counts of a run."""

    succeeded: int
    failed: int


async def ab(url: str, folder: Path) -> Tally:
    text = await run("ab", "-k", "-n", str(REQUESTS), "-c", "10", url, folder=folder)
    # It counts responses of another length than the first one, too; these are all alike.
    failed = number(r"Failed requests: +(\d+)", text) + number(r"Non-2xx responses: +(\d+)", text)
    return Tally(number(r"Keep-Alive requests: +(\d+)", text), failed)


async def wrk(url: str, folder: Path) -> Tally:
    text = await run("wrk", "-d3s", url, folder=folder)
    failed = number(r"Non-2xx or 3xx responses: (\d+)", text) + ("Socket errors" in text)
    return Tally(number(r"(\d+) requests in", text), failed)


async def hey(url: str, folder: Path) -> Tally:
    text = await run("hey", "-n", str(REQUESTS), url, folder=folder)
    return Tally(number(r"\[200\]\s+(\d+) responses", text), "Error distribution" in text)


async def siege(url: str, folder: Path) -> Tally:
    text = await run("siege", "-b", "-c", "10", "-r", str(REQUESTS // 10), url, folder=folder)
    report = json.loads(text[text.index("{") :])
    return Tally(report["successful_transactions"], report["failed_transactions"])


async def h2load(url: str, folder: Path, *options: str) -> Tally:
    text = await run("h2load", *options, "-n", str(REQUESTS), "-c", "10", url, folder=folder)
    failed = number(r"(\d+) failed", text) + number(r"(\d+) errored", text)
    return Tally(number(r"(\d+) 2xx", text), failed)


async def h2load_http1(url: str, folder: Path) -> Tally:
    return await h2load(url, folder, "--h1")


async def autocannon(url: str, folder: Path) -> Tally:
    text = await run("autocannon", "-a", str(REQUESTS), "--json", url, folder=folder)
    report = json.loads(text[text.index('{"') :])
    return Tally(report["2xx"], report["errors"] + report["timeouts"] + report["non2xx"])


async def artillery(url: str, folder: Path) -> Tally:
    quick = ["quick", "--count", "10", "--num", str(REQUESTS // 10)]
    await run("artillery", *quick, "--insecure", "--output", "report.json", url, folder=folder)
    counters = json.loads((folder / "report.json").read_text())["aggregate"]["counters"]
    failed = sum(count for name, count in counters.items() if name.startswith("errors."))
    return Tally(counters.get("http.codes.200", 0), failed + counters.get("vusers.failed", 0))


LOCUST = """
import json

from locust import HttpUser, constant, events, task

@events.request.add_listener
def count(**_):
    stats = Reader.environment.runner.stats.total
    if stats.num_requests >= {requests}:
        Reader.environment.runner.quit()

# Its own report may be written before the run ends.
@events.quitting.add_listener
def report(environment, **_):
    total = environment.stats.total
    with open("tally.json", "w") as file:
        json.dump([total.num_requests, total.num_failures], file)

@events.init.add_listener
def init(environment, **_):
    Reader.environment = environment

class Reader(HttpUser):
    wait_time = constant(0)

    @task
    def read(self):
        self.client.get("{path}")
"""


async def locust(url: str, folder: Path) -> Tally:
    (folder / "locustfile.py").write_text(LOCUST.format(path=PATH, requests=REQUESTS))
    host = url.removesuffix(PATH)
    options = ("--headless", "-u", "10", "-r", "10", "-t", "60s", "--host", host)
    await run("locust", *options, folder=folder)
    requests, failures = json.loads((folder / "tally.json").read_text())
    return Tally(requests - failures, failures)


GENERATORS: dict[str, Callable[[str, Path], Awaitable[Tally]]] = {
    "wrk": wrk,
    "hey": hey,
    "ab -k": ab,
    "siege": siege,
    "h2load --h1": h2load_http1,
    "autocannon": autocannon,
    "locust": locust,
    "artillery": artillery,
}


class TestLoadGenerators:
    @pytest.mark.parametrize("way", ["straight", "nginx"])
    @pytest.mark.parametrize("name", GENERATORS)
    async def test_run_has_no_failures(
        self, site: Site, tmp_path: Path, name: str, way: Way
    ) -> None:
        tally = await GENERATORS[name](site.url(way) + PATH, tmp_path)

        assert tally.failed == 0
        # The number of requests of wrk cannot be set.
        assert tally.succeeded >= (1 if name == "wrk" else REQUESTS)

    async def test_http2_over_tls_has_no_failures(self, site: Site, tmp_path: Path) -> None:
        assert await h2load(site.tls + PATH, tmp_path) == Tally(REQUESTS, 0)
