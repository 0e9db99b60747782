"""Load generator: a few seconds of requests, and a report of throughput and latency.

It needs only the standard library, limits time and connections, and cleans up: with ``--write`` it
signs up an account and deletes it in the end together with its products.

    docker compose run --rm load --seconds 20 --connections 64 --write
"""

import argparse
import asyncio
import json
import random
import secrets
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from urllib.parse import urlsplit

MAX_SECONDS = 300
MAX_CONNECTIONS = 512
ANSWER_SECONDS = 15
PAGES = ("", "?limit=20", "?limit=20&sort=price", "?limit=20&sort=-name", "?fields=id,name")
"""Pages that readers request, the first one more often than the others."""


class Client:
    """HTTP client with one connection, reopened after the server has closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise SystemExit("The address must begin with http:// and name a host.")
        self._host, self._port = parts.hostname, parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, bytes]:
        """Send one request and return status and body of its response.

        Raises:
            OSError, EOFError, TimeoutError: there was no complete response.
        """
        sent = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", f"Content-Length: {len(sent)}"]
        if sent:
            lines.append("Content-Type: application/json")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._host, self._port)
                reader, writer = self._streams
                writer.write("\r\n".join([*lines, "", ""]).encode() + sent)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
                content = await reader.readexactly(int(fields.get("content-length", "0")))
        except BaseException:
            self.close()
            raise
        if fields.get("connection") == "close":
            self.close()
        return int(head.split(" ", 2)[1]), content

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


class Tally:
    """Latencies by method, and outcomes by status or error."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.outcomes: Counter[str] = Counter()

    async def count(
        self, client: Client, method: str, path: str, body: object = None, **headers: str
    ) -> None:
        """Send a request and record its latency and outcome."""
        began = time.perf_counter()
        try:
            status, _ = await client.ask(method, path, body, **headers)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.outcomes[type(error).__name__] += 1
            # Avoids a busy loop while the service refuses connections.
            await asyncio.sleep(0.1)
            return
        self.seconds[method].append(time.perf_counter() - began)
        self.outcomes[str(status)] += 1

    def report(self, elapsed: float) -> Iterator[str]:
        """Yield the lines of the report."""
        titles = ("requests", "per s", "p50 ms", "p95 ms", "p99 ms", "max ms")
        yield " " * 8 + "".join(f"{title:>10}" for title in titles)
        for method, seconds in sorted(self.seconds.items()):
            seconds.sort()
            shares = [
                seconds[min(len(seconds) - 1, int(len(seconds) * share))]
                for share in (0.5, 0.95, 0.99, 1)
            ]
            times = "".join(f"{1000 * each:>10.1f}" for each in shares)
            yield f"{method:8}{len(seconds):>10}{len(seconds) / elapsed:>10.0f}{times}"
        outcomes = ", ".join(f"{name}: {number}" for name, number in sorted(self.outcomes.items()))
        yield f"answers  {outcomes}"

    @property
    def failed(self) -> int:
        """Number of requests without a response or with a 5xx."""
        return sum(
            number
            for outcome, number in self.outcomes.items()
            if not outcome.isdigit() or int(outcome) >= 500
        )


async def read(client: Client, tally: Tally, end: float) -> None:
    """Request pages until ``end``."""
    while time.monotonic() < end:
        page = PAGES[0] if random.random() < 0.5 else random.choice(PAGES)  # noqa: S311 (no secret)
        await tally.count(client, "GET", f"/api/products{page}")


async def write(client: Client, tally: Tally, end: float, token: str) -> None:
    """Create products until ``end``."""
    number = 0
    while time.monotonic() < end:
        number += 1
        await tally.count(
            client,
            "POST",
            "/api/products",
            {"name": f"Load {number}", "price": number},
            Authorization=f"Bearer {token}",
            Idempotency_Key=secrets.token_hex(16),
        )


async def run(url: str, seconds: float, connections: int, *, writing: bool) -> Tally:
    """Put the service under load and return the tally."""
    tally, owner = Tally(), Client(url)
    name, password = f"load-{secrets.token_hex(6)}", secrets.token_urlsafe(16)
    token = ""
    if writing:
        account = {"username": name, "email": f"{name}@example.com", "password": password}
        status, answer = await owner.ask("POST", "/api/auth/signup", account)
        if status != 201:
            raise SystemExit(f"Signing up was answered with {status}: {answer.decode()}")
        token = json.loads(answer)["access_token"]
    # One connection in four writes.
    writers = max(1, connections // 4) if writing else 0
    clients = [Client(url) for _ in range(connections)]
    end = time.monotonic() + seconds
    try:
        await asyncio.gather(
            *(write(client, tally, end, token) for client in clients[:writers]),
            *(read(client, tally, end) for client in clients[writers:]),
        )
    finally:
        for client in clients:
            client.close()
        if writing:
            owner.close()
            headers = {"Authorization": f"Bearer {token}"}
            await owner.ask("DELETE", "/api/auth/me", {"password": password}, **headers)
        owner.close()
    return tally


def main() -> None:
    """Parse the arguments, run and report; exits with 1 if a request failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--seconds", type=float, default=15, help=f"at most {MAX_SECONDS}")
    parser.add_argument("--connections", type=int, default=32, help=f"at most {MAX_CONNECTIONS}")
    parser.add_argument("--write", action="store_true", help="a quarter of them creates products")
    given = parser.parse_args()
    if not 0 < given.seconds <= MAX_SECONDS or not 1 <= given.connections <= MAX_CONNECTIONS:
        parser.error(f"at most {MAX_SECONDS} seconds and {MAX_CONNECTIONS} connections")
    began = time.monotonic()
    try:
        work = run(given.url, given.seconds, given.connections, writing=given.write)
        tally = asyncio.run(work)
    except (OSError, EOFError) as error:
        raise SystemExit(f"{given.url} does not answer: {error}") from None
    print(f"{given.url}, {given.connections} connections, {given.seconds:g} s")  # noqa: T201
    for line in tally.report(time.monotonic() - began):
        print(line)  # noqa: T201
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
