"""The service behind nginx, both as shipped, and the resources that their processes use."""

import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.numbers import Numbers
from tests.server.nginx import Nginx, nginx
from tests.server.processes import GONE, children_of
from tests.server.service import Catalog, Connection, Service

WORKERS = 2

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Footprint:
    """Resources that a process uses.

    Attributes:
        resident: bytes in memory.
        descriptors: open ones, without pages of nginx's cache: nginx keeps files open that were
            requested in the last 20 s, at most 2,000 per worker.
    """

    resident: int
    descriptors: int

    @classmethod
    def of(cls, *pids: int) -> Self:
        """Return the sum over some processes; those that have exited count as nothing."""
        resident = descriptors = 0
        for pid in pids:
            with suppress(*GONE):
                resident += _resident(pid)
                descriptors += sum(map(_counts, Path(f"/proc/{pid}/fd").iterdir()))
        return cls(resident, descriptors)


_CACHED_PAGE = re.compile(r".*/[0-9a-f]{32}(?: \(deleted\))?")


def _counts(descriptor: Path) -> bool:
    try:
        return _CACHED_PAGE.fullmatch(str(descriptor.readlink())) is None
    except FileNotFoundError:
        return False


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def connections_of(url: str) -> int:
    """Return the number of connections that a server on loopback has not closed."""
    port = f":{int(url.rpartition(':')[2]):04X}"
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(local.endswith(port) and state in _OPEN for _, local, _, state, *_ in lines)


_OPEN = {"01", "08"}
"""ESTABLISHED and CLOSE_WAIT in Linux's numbering: in both the server's end is open."""


@dataclass(frozen=True, slots=True)
class Site:
    """A running service with nginx in front of it.

    Attributes:
        token: an access token of an account; valid for 15 minutes.
    """

    service: Service
    nginx: Nginx
    token: str

    def processes(self) -> dict[str, list[int]]:
        """Return the ids of all processes, by role."""
        master = int((self.nginx.folder / "nginx.pid").read_text())
        return {
            "supervisor": [self.service.process.pid],
            "workers": sorted(self.service.workers),
            "nginx": [master, *children_of(master)],
        }

    def footprints(self) -> dict[str, Footprint]:
        """Return the resources of the processes, by role."""
        return {name: Footprint.of(*pids) for name, pids in self.processes().items()}

    async def numbers(self) -> Numbers:
        """Return the metrics from the service itself; nginx does not expose them."""
        connection = await Connection.open(self.service.url)
        try:
            answer = await connection.get("/metrics")
            return Numbers(answer.body.decode())
        finally:
            await connection.close()

    def errors_of_nginx(self) -> list[str]:
        """Return the entries of nginx's error log that are critical or worse."""
        lines = (self.nginx.folder / "error.log").read_text(errors="replace").splitlines()
        serious = [
            line for line in lines if any(f"[{s}]" in line for s in ("crit", "alert", "emerg"))
        ]
        # Where pytest may not raise the limit, nginx may not either.
        return [line for line in serious if "setrlimit" not in line]


@asynccontextmanager
async def site(catalog: Catalog, **environment: str) -> AsyncIterator[Site]:
    """Run the service with two workers behind nginx."""
    workers = f"--workers={WORKERS}"
    async with catalog.start(workers, **environment) as service:
        await service.serving()
        token = await service.sign_up("tester")
        async with nginx(service.url) as proxy:
            yield Site(service, proxy, token)


async def fill(service: Service, token: str, count: int, *, description: int = 100) -> None:
    """Create products by imports.

    Args:
        service: where to create them.
        token: of the owner.
        count: number of products.
        description: characters of each description.
    """
    connection = await Connection.open(service.url)
    for begin in range(0, count, 1000):
        numbers = range(begin, min(begin + 1000, count))
        lines = (
            json.dumps({"name": f"Thing {n}", "price": n % 1000, "description": "d" * description})
            for n in numbers
        )
        answer = await send(
            connection,
            "POST",
            "/api/products",
            "Content-Type: application/x-ndjson",
            f"Authorization: Bearer {token}",
            body="\n".join(lines).encode(),
        )
        assert answer == 200
    await connection.close()


async def send(
    connection: Connection, method: str, path: str, *fields: str, body: bytes = b""
) -> int:
    """Send a request with a verbatim body; return the status of the response."""
    head = [f"{method} {path} HTTP/1.1", "Host: catalog", f"Content-Length: {len(body)}", *fields]
    await connection.send("\r\n".join([*head, "", ""]).encode() + body)
    return (await connection.answer()).status


def kill(pid: int) -> None:
    """Kill a process by SIGKILL."""
    os.kill(pid, signal.SIGKILL)
