"""Clients in a process of their own, so that the test's work does not distort their measurements.

The process also measures its own scheduling lag and subtracts it from the reported times.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.faults.outcomes import LOST, Outcome
from tests.server.service import CONNECTION_FAILURES, Answer, Connection
from tests.support import PASSWORD

GIVE_UP_SECONDS = 40.0
"""Time-out after which a request counts as lost; longer than any deadline, the controls' too."""

PAUSE_SECONDS = 0.15
"""Mean pause of a client between two requests: the fault is under test, not the load."""

TICK_SECONDS = 0.005
PATH = "/api/products"

# Relative frequency of each kind of request.
_MIX = {
    **dict.fromkeys(("list", "page", "one", "mine"), 12),
    "readiness": 3,
    **dict.fromkeys(("create", "keyed", "change"), 10),
    "delete": 8,
    "sign_in": 1,
}


class _Lag:
    """Adds up the seconds in which this process wanted to run and did not."""

    """Accumulated seconds in which this process was runnable but did not run."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            late = time.monotonic() - began - TICK_SECONDS
            if late > TICK_SECONDS:
                self.seconds += late


class _Client:
    """A client with its own connection and its own products."""

    def __init__(self, url: str, token: str, username: str, lag: _Lag, number: int) -> None:
        self.outcomes: list[Outcome] = []
        self._url = url
        self._token = token
        self._username = username
        self._lag = lag
        self._number = number
        self._connection: Connection | None = None
        self._products: list[int] = []
        self._count = 0
        self._key = ""

    async def run(self, stopped: asyncio.Event, shared: list[int]) -> None:
        kinds, weights = list(_MIX), list(_MIX.values())
        while not stopped.is_set():
            (kind,) = random.choices(kinds, weights)  # noqa: S311 (not a secret)
            if kind in {"change", "delete"} and len(self._products) < 2:
                kind = "create"
            await self._ask(kind, shared)
            await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE_SECONDS)  # noqa: S311 (not a secret)
        if self._connection is not None:
            await self._connection.close()

    async def _ask(self, kind: str, shared: list[int]) -> None:
        self._count += 1
        lamp = {"name": f"Lamp {self._number}-{self._count}", "price": self._count}
        fields: list[str] = []
        body: Any = None
        method, path = "GET", PATH
        if kind == "page":
            # A random filter, so that no cache has the page.
            path = f"{PATH}?limit=20&min_price={random.randrange(10**9)}"  # noqa: S311 (not a secret)
        elif kind == "one":
            path = f"{PATH}/{random.choice(shared)}"  # noqa: S311 (not a secret)
        elif kind == "mine":
            path = f"{PATH}/my?limit=20"
        elif kind == "readiness":
            path = "/readyz"
        elif kind == "create":
            method, body = "POST", lamp
        elif kind == "keyed":
            # A request without an answer is retried under its key.
            self._key = self._key or f"{self._number}-{self._count}"
            method, body = "POST", {"name": f"Keyed {self._key}", "price": 1}
            fields = [f"Idempotency-Key: {self._key}"]
        elif kind == "change":
            method, path = "PATCH", f"{PATH}/{self._products[0]}"
            body = {"price": self._count}
        elif kind == "delete":
            method, path = "DELETE", f"{PATH}/{self._products[-1]}"
        elif kind == "sign_in":
            method, path = "POST", "/api/auth/login"
            body = {"username": self._username, "password": PASSWORD}
        answer = await self._send(kind, method, path, fields, body)
        if answer is None or answer.status == 503:
            return
        if kind == "keyed" and answer.status == 201:
            self._key = ""
        elif kind == "create" and answer.status == 201:
            self._products.append(json.loads(answer.body)["id"])
        elif kind == "delete":
            self._products.pop()

    async def _send(
        self, kind: str, method: str, path: str, fields: list[str], body: Any
    ) -> Answer | None:
        token = "" if kind in {"readiness", "sign_in"} else self._token
        lag, began = self._lag.seconds, time.monotonic()
        answer = None
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                if self._connection is None:
                    self._connection = await Connection.open(self._url)
                answer = await self._connection.ask(method, path, *fields, token=token, body=body)
        except CONNECTION_FAILURES:
            pass
        seconds = time.monotonic() - began
        lag = min(self._lag.seconds - lag, seconds)
        status, code, retry_after = LOST, "", ""
        if answer is not None:
            status, retry_after = answer.status, answer.headers.get("retry-after", "")
            if status >= 400:
                code = str(json.loads(answer.body).get("code"))
        outcome = Outcome(kind, began, seconds - lag, status, code, retry_after, lag)
        self.outcomes.append(outcome)
        if self._connection is not None and (answer is None or answer.closes):
            await self._connection.close()
            self._connection = None
        return answer


async def _main() -> None:
    """Run commands, one JSON line each: an object starts clients, null stops them."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    lag = _Lag()
    watching = asyncio.create_task(lag.watch())
    stopped = asyncio.Event()
    clients: list[_Client] = []
    running: list[asyncio.Task[None]] = []
    while line := await reader.readline():
        if (order := json.loads(line)) is not None:
            stopped.clear()
            clients = [
                _Client(order["url"], order["token"], order["username"], lag, number)
                for number in range(order["count"])
            ]
            running = [
                asyncio.create_task(client.run(stopped, order["shared"])) for client in clients
            ]
            while not all(client.outcomes for client in clients):
                await asyncio.sleep(0.01)
            found = []
        else:
            stopped.set()
            await asyncio.gather(*running)
            found = [outcome for client in clients for outcome in client.outcomes]
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    watching.cancel()


class Clients:
    """Outcomes of one run of clients.

    Attributes:
        outcomes: of all requests; set when the run has ended.
    """

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []


class ClientProcess:
    """Handle of the process that runs the clients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def _order(self, order: dict[str, Any] | None) -> list[list[Any]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()
        found: list[list[Any]] = json.loads(await self._process.stdout.readline())
        return found

    @asynccontextmanager
    async def asking(
        self, url: str, token: str, username: str, shared: list[int], *, count: int
    ) -> AsyncIterator[Clients]:
        """Run clients inside the block; each has finished a request when it begins.

        Args:
            url: of the service.
            token: an access token.
            username: of the token's account, for occasional log-ins.
            shared: ids of products that are never deleted.
            count: number of clients.
        """
        clients = Clients()
        await self._order(
            {"url": url, "token": token, "username": username, "shared": shared, "count": count}
        )
        try:
            yield clients
        finally:
            clients.outcomes = [Outcome(*each) for each in await self._order(None)]


@asynccontextmanager
async def client_process() -> AsyncIterator[ClientProcess]:
    """Run the clients' process for the duration of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.clients"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**26,
    )
    try:
        yield ClientProcess(process)
    finally:
        process.kill()
        await process.communicate()


if __name__ == "__main__":
    asyncio.run(_main())
