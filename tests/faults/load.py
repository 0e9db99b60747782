"""Load generator in a process of its own, so that neither clients nor measurements are starved.

``python -m tests.faults.load`` runs the clients of a ``Plan``, given as JSON. Each line on standard
input is a command: ``report`` prints a report and resets the latencies; ``stop`` lets every
client finish its request, prints the last report and ends the process.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Self
from uuid import uuid4

from tests.engines import tied_to_us
from tests.support import PASSWORD

ANSWER_SECONDS = 40.0
"""Time-out after which a request counts as failed: nginx holds one up to 30 s during an outage."""

IMPORTED = 10
"""Lines of an import; the products are deleted again, so that the database does not grow."""

SAMPLES = 5
"""Failures that are reported in full."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Work of a load process.

    Attributes:
        url: base URL of the server.
        clients: keep-alive connections, each with one request at a time.
        mix: operations with their weights.
        username: account that owns the created products.
        pause: seconds between two requests of a client.
    """

    url: str
    clients: int
    mix: dict[str, int]
    username: str = "tester"
    pause: float = 0.0


READS = {"first_page": 6, "random_page": 3, "product": 3}
READS_AND_KEYED_CREATES = {**READS, "keyed_create": 2}
EVERYTHING = {
    "first_page": 30,
    "random_page": 20,
    "product": 20,
    "search": 5,
    "create": 6,
    "keyed_create": 6,
    "patch": 6,
    "delete": 24,
    "log_in": 1,
    "refresh": 2,
    "export": 1,
    "import_lines": 1,
    "events": 1,
    "error": 6,
    "slow_head": 1,
    "vanish": 2,
}


@dataclass
class Report:
    """Results of a load process.

    Attributes:
        outcomes: counts by operation and status, as in ``first_page 200``.
        failures: count of requests with an incomplete or an unexpected answer.
        samples: some of the failures.
        created: names of products whose creation was acknowledged, since the last report.
        latencies: seconds of each request since the last report.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    samples: list[str] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Count of finished requests, successful or not."""
        return self.outcomes.total()

    def percentile(self, share: float) -> float:
        """Return the latency in seconds at a percentile, given as a share."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Unexpected(Exception):
    """An answer with an unexpected status."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def read_reply(reader: asyncio.StreamReader, *, most: int | None = None) -> Reply:
    """Read one answer.

    Args:
        reader: of the connection.
        most: chunks of a chunked body after which to stop.

    Raises:
        asyncio.IncompleteReadError: the connection ended before the answer did.
    """
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
            if most is not None and (most := most - 1) == 0:
                break
        else:
            await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(int(lines[0].split()[1]), headers, body)


class _Client:
    """A client that runs one operation after the other on its connection.

    Args:
        plan: operations and their weights.
        report: where to record results.
        tokens: ``access`` and ``refresh`` of the account, shared by all clients.
    """

    def __init__(self, plan: Plan, report: Report, tokens: dict[str, str]) -> None:
        self._plan = plan
        self._report = report
        self._tokens = tokens
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._own: list[int] = []
        self._random = random.Random()  # noqa: S311 (a mix of requests)

    async def run(self, stopped: asyncio.Event) -> None:
        names, weights = list(self._plan.mix), list(self._plan.mix.values())
        while not stopped.is_set():
            name = self._random.choices(names, weights)[0]
            operation: Callable[[], Awaitable[str]] = getattr(self, f"_{name}")
            began = time.perf_counter()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    outcome = await operation()
            except (OSError, EOFError, ValueError, Unexpected) as error:
                outcome = "failed"
                self._report.failures += 1
                if len(self._report.samples) < SAMPLES:
                    self._report.samples.append(f"{name}: {error!r}")
                self._close()
            self._report.outcomes[f"{name} {outcome}"] += 1
            self._report.latencies.append(time.perf_counter() - began)
            await asyncio.sleep(self._plan.pause)
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None:
            host, _, port = self._plan.url.removeprefix("http://").rpartition(":")
            self._reader, self._writer = await asyncio.open_connection(host, int(port))
        return self._reader, self._writer

    async def _ask(
        self,
        method: str,
        path: str,
        *fields: str,
        expect: set[int],
        body: Any = None,
        token: str = "",
        most: int | None = None,
    ) -> Reply:
        """Send a request and read its answer.

        Raises:
            Unexpected: the status is not in ``expect``.
        """
        reader, writer = await self._connected()
        lines = [f"{method} {path} HTTP/1.1", "Host: catalog", *fields]
        content = b""
        if isinstance(body, bytes):
            content = body
        elif body is not None:
            content = json.dumps(body).encode()
            lines.append("Content-Type: application/json")
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if method != "GET":
            lines.append(f"Content-Length: {len(content)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()
        reply = await read_reply(reader, most=most)
        if reply.headers.get("connection", "").lower() == "close" or most is not None:
            self._close()
        if reply.status not in expect:
            raise Unexpected(f"{method} {path}: {reply.status} {reply.body[:200]!r}")
        return reply

    async def _first_page(self) -> str:
        return str((await self._ask("GET", "/api/products?limit=20", expect={200})).status)

    async def _random_page(self) -> str:
        path = f"/api/products?limit=20&min_price={self._random.randrange(1000)}"
        reply = await self._ask("GET", path, "Accept-Encoding: gzip", expect={200})
        return str(reply.status)

    async def _product(self) -> str:
        path = f"/api/products/{self._random.randint(1, 2000)}"
        return str((await self._ask("GET", path, expect={200, 404})).status)

    async def _own_page(self) -> str:
        path, token = "/api/products/my?limit=1", self._tokens["access"]
        return str((await self._ask("GET", path, token=token, expect={200})).status)

    async def _search(self) -> str:
        path = f"/api/products?limit=5&q=thing+{self._random.randint(1, 2000)}"
        return str((await self._ask("GET", path, expect={200})).status)

    async def _create(self, *fields: str) -> str:
        name = f"Lamp {uuid4().hex}"
        reply = await self._ask(
            "POST",
            "/api/products",
            *fields,
            body={"name": name, "price": self._random.randrange(1000)},
            token=self._tokens["access"],
            expect={201},
        )
        self._report.created.append(name)
        self._own.append(reply.json["id"])
        return str(reply.status)

    async def _keyed_create(self) -> str:
        return await self._create(f"Idempotency-Key: {uuid4().hex}")

    async def _patch(self) -> str:
        if not self._own:
            return await self._create()
        reply = await self._ask(
            "PATCH",
            f"/api/products/{self._random.choice(self._own)}",
            body={"price": self._random.randrange(1000)},
            token=self._tokens["access"],
            # 404 for the same reason as in ``_delete``.
            expect={200, 404},
        )
        return str(reply.status)

    async def _delete(self) -> str:
        if not self._own:
            return await self._create()
        path = f"/api/products/{self._own.pop()}"
        # Ids of an import are a guess: another client's create may fall between its lines.
        reply = await self._ask("DELETE", path, token=self._tokens["access"], expect={200, 404})
        return str(reply.status)

    async def _log_in(self) -> str:
        fields = {"username": self._plan.username, "password": PASSWORD}
        reply = await self._ask("POST", "/api/auth/login", body=fields, expect={200})
        self._tokens.update(access=reply.json["access_token"], refresh=reply.json["refresh_token"])
        return str(reply.status)

    async def _refresh(self) -> str:
        token = self._tokens["refresh"]
        reply = await self._ask("POST", "/api/auth/refresh", token=token, expect={200})
        self._tokens["access"] = reply.json["access_token"]
        return str(reply.status)

    async def _export(self) -> str:
        path = "/api/products?max_price=300"
        reply = await self._ask("GET", path, "Accept: application/x-ndjson", expect={200})
        return str(reply.status)

    async def _import_lines(self) -> str:
        lines = (
            json.dumps({"name": f"Import {n}", "price": n})
            for n in self._random.sample(range(1000), IMPORTED)
        )
        reply = await self._ask(
            "POST",
            "/api/products",
            "Content-Type: application/x-ndjson",
            body="\n".join(lines).encode(),
            token=self._tokens["access"],
            expect={200},
        )
        self._own += range(reply.json["first_id"], reply.json["last_id"] + 1)
        return str(reply.status)

    async def _events(self) -> str:
        reply = await self._ask(
            "GET",
            "/api/products/changes?since=0",
            "Accept: text/event-stream",
            expect={200},
            most=self._random.randint(1, 20),
        )
        return str(reply.status)

    async def _error(self) -> str:
        path, status = self._random.choice(
            [
                ("/api/products/0", 404),
                ("/api/nothing", 404),
                ("/api/products?limit=0", 422),
                ("/api/products?cursor=wrong", 400),
                ("/api/products/my", 401),
            ]
        )
        return str((await self._ask("GET", path, expect={status})).status)

    async def _slow_head(self) -> str:
        """Send part of a request head, one byte every half second; then disconnect."""
        self._close()
        _, writer = await self._connected()
        for piece in (b"GET /api/products HTTP/1.1\r\nHo", b"s", b"t", b":"):
            writer.write(piece)
            await asyncio.sleep(0.5)
        self._close()
        return "left"

    async def _vanish(self) -> str:
        """Request a large page and reset the connection."""
        self._close()
        _, writer = await self._connected()
        writer.write(b"GET /api/products?limit=1000 HTTP/1.1\r\nHost: catalog\r\n\r\n")
        await asyncio.sleep(self._random.random() * 0.02)
        writer.transport.abort()
        self._close()
        return "left"


async def _run(plan: Plan) -> None:
    report = Report()
    stopped = asyncio.Event()
    tokens: dict[str, str] = {}
    await _Client(plan, Report(), tokens)._log_in()
    clients = [
        asyncio.create_task(_Client(plan, report, tokens).run(stopped)) for _ in range(plan.clients)
    ]
    renewal = asyncio.create_task(_renew(plan, tokens))
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    async for command in commands:
        if command == b"stop\n":
            break
        _tell(report)
    stopped.set()
    renewal.cancel()
    await asyncio.gather(*clients)
    _tell(report)


async def _renew(plan: Plan, tokens: dict[str, str]) -> None:
    """Renew the access token, which lives for 15 minutes, every 5 minutes."""
    client = _Client(plan, Report(), tokens)
    while True:
        await asyncio.sleep(300)
        await client._log_in()


def _tell(report: Report) -> None:
    sys.stdout.write(json.dumps(vars(report)) + "\n")
    sys.stdout.flush()
    report.latencies.clear()
    report.created.clear()


class Load:
    """Handle of a running load process.

    Attributes:
        created: names of all products whose creation was acknowledged.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.created: list[str] = []

    @classmethod
    @asynccontextmanager
    async def start(cls, plan: Plan) -> AsyncIterator[Self]:
        """Run the load for the duration of the block."""
        process = await asyncio.create_subprocess_exec(
            *(*tied_to_us(), sys.executable, "-m", "tests.faults.load", json.dumps(asdict(plan))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A report holds all latencies since the last one.
            limit=256 * 1024 * 1024,
        )
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def report(self) -> Report:
        """Return the results so far, with the latencies since the last report."""
        return await self._command(b"report\n")

    async def stop(self) -> Report:
        """Let every client finish its request; return the last report."""
        report = await self._command(b"stop\n")
        await self._process.wait()
        return report

    async def reaches(self, requests: int, *, within: float) -> Report:
        """Wait for a number of finished requests.

        Raises:
            TimeoutError: the number was not reached in time.
        """
        async with asyncio.timeout(within):
            while (report := await self.report()).requests < requests:
                await asyncio.sleep(0.2)
        return report

    async def _command(self, command: bytes) -> Report:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command)
        values = json.loads(await self._process.stdout.readline())
        values["outcomes"] = Counter(values["outcomes"])
        report = Report(**values)
        self.created += report.created
        return report


if __name__ == "__main__":
    asyncio.run(_run(Plan(**json.loads(sys.argv[1]))))
