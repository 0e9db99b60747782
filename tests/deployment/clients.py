#!/usr/bin/env python3
"""Load while a command disturbs the stack, and a report of what clients noticed.

Reads and creates with an Idempotency-Key over persistent connections, as an HTTP library makes
them: a connection that was closed while idle is reopened, and a create that is shed with 503 is
retried after Retry-After. Reads and other failures are not retried. In the end every acknowledged
create must exist once, and no other more than once.

    tests/deployment/clients.py --url URL --password-file FILE docker compose restart app

Needs only the standard library.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

PATH = "/api/products"
READS_PER_CREATE = 9
MAX_REPEATS = 5
PAUSE_SECONDS = 0.03
BEFORE_SECONDS = 2
AFTER_SECONDS = 3
AGAIN_SECONDS = 60
"""Until the stack has recovered, whatever the command did."""
TIMEOUT_SECONDS = 40
"""For a response; nginx gives up after 30 s."""


class Answer:
    """An HTTP response."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def is_clean_refusal(self) -> bool:
        """Whether the response is a well-formed 503 with a Retry-After."""
        return (
            self.status == 503
            and self.headers.get("retry-after", "").isdigit()
            and self.headers.get("content-type") == "application/problem+json"
            and json.loads(self.body)["status"] == 503
        )


class Client:
    """HTTP client with one persistent connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.reopened = 0

    async def ask(self, method: str, path: str, *, body: Any = None, **headers: str) -> Answer:
        """Send a request and return its response.

        Raises:
            OSError, EOFError, TimeoutError: there was no complete response.
        """
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if content:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        data = "\r\n".join([*lines, "", ""]).encode() + content
        async with asyncio.timeout(TIMEOUT_SECONDS):
            was_open = self._streams is not None
            try:
                return await self._exchange(method, data)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                self.close()
                if not was_open or (
                    isinstance(error, asyncio.IncompleteReadError) and error.partial
                ):
                    raise
            self.reopened += 1
            return await self._exchange(method, data)

    async def _exchange(self, method: str, data: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=1 << 20)
        reader, writer = self._streams
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        elif method != "HEAD":
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(head[0].split()[1]), headers, body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


class Load:
    """All clients and their results."""

    def __init__(self, url: str, token: str, *, allows_refusals: bool) -> None:
        self._url = url
        self._token = token
        self._allows_refusals = allows_refusals
        self._is_over = False
        self.seen: Counter[str] = Counter()
        self.failures: list[str] = []
        self.created: dict[str, int] = {}
        self.tried: set[str] = set()
        self.reopened = 0
        self.longest = 0.0

    async def run(self, clients: int, requests: int, command: list[str]) -> int:
        """Run a command under load, then continue until ``requests`` requests were made.

        Returns:
            the command's exit status.
        """
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(number))
            await asyncio.sleep(BEFORE_SECONDS)
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(*command, stdout=sys.stderr)
            status = await process.wait()
            say(f"The command took {time.monotonic() - began:.1f} s.")
            await asyncio.sleep(AFTER_SECONDS)
            while sum(self.seen.values()) < requests:
                await asyncio.sleep(0.1)
            self._is_over = True
        return status

    async def _client(self, number: int) -> None:
        client = Client(self._url)
        turn = number
        while not self._is_over:
            turn += 1
            began = time.monotonic()
            try:
                if turn % (READS_PER_CREATE + 1):
                    answer = await client.ask("GET", f"{PATH}?limit={1 + turn % 5}")
                    self._note("reads", answer, 200)
                else:
                    await self._create(client)
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(f"{error!r}")
                self.seen["without an answer"] += 1
            self.longest = max(self.longest, time.monotonic() - began)
            await asyncio.sleep(PAUSE_SECONDS)
        self.reopened += client.reopened
        client.close()

    async def _create(self, client: Client) -> None:
        name = uuid4().hex
        self.tried.add(name)
        for _ in range(MAX_REPEATS):
            answer = await client.ask(
                "POST",
                PATH,
                body={"name": name, "price": 1},
                Authorization=f"Bearer {self._token}",
                Idempotency_Key=name,
            )
            if self._allows_refusals or not answer.is_clean_refusal:
                break
            # Shed by back-pressure on writes: retry after the given time.
            self.seen["creates to be repeated"] += 1
            await asyncio.sleep(int(answer.headers["retry-after"]))
        self._note("creates", answer, 201)
        if answer.status == 201:
            self.created[name] = json.loads(answer.body)["id"]

    def _note(self, kind: str, answer: Answer, expected: int) -> None:
        if answer.status == expected:
            self.seen[kind] += 1
        elif self._allows_refusals and answer.is_clean_refusal:
            self.seen["refusals"] += 1
        else:
            self.seen["failed"] += 1
            self.failures.append(f"{kind}: {answer.status} {answer.body[:300]!r}")

    async def check(self) -> list[str]:
        """Return acknowledged creates that are lost, and names that exist more than once."""
        ask = partial(
            Client(self._url).ask,
            *("GET", f"{PATH}?fields=id,name"),
            Accept="application/x-ndjson",
            Cache_Control="no-cache",
        )
        async with asyncio.timeout(AGAIN_SECONDS):
            while (answer := await ask()).status != 200:
                await asyncio.sleep(1)
        there = [json.loads(line) for line in answer.body.splitlines()]
        count = Counter(product["name"] for product in there)
        ids = {product["name"]: product["id"] for product in there}
        lost = [name for name, made in self.created.items() if ids.get(name) != made]
        doubled = [name for name in self.tried if count[name] > 1]
        return [f"lost: {name}" for name in lost] + [f"doubled: {name}" for name in doubled]


async def sign_in(url: str, username: str, password: str) -> str:
    """Log in and return an access token."""
    body = {"username": username, "password": password}
    answer = await Client(url).ask("POST", "/api/auth/login", body=body)
    if answer.status != 200:
        raise SystemExit(f"Signing in: {answer.status} {answer.body!r}")
    return str(json.loads(answer.body)["access_token"])


def say(text: str) -> None:
    """Print progress at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main() -> int:
    """Return exit status 0 if no client saw a failure, or only 503 where that is allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--username", default="admin")
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20_000, help="at least")
    parser.add_argument("--allow-503", action="store_true", help="if it tells when to come again")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    token = await sign_in(given.url, given.username, given.password_file.read_text().strip())
    load = Load(given.url, token, allows_refusals=given.allow_503)
    status = await load.run(given.clients, given.requests, given.command)
    faults = [*load.failures, *await load.check()]
    say(", ".join(f"{count:,} {what}" for what, count in sorted(load.seen.items())))
    say(f"longest answer {load.longest:.2f} s, {load.reopened} connections opened again")
    say(f"{len(load.created):,} created, {len(faults)} faults")
    for fault in faults[:10]:
        say(fault)
    return 1 if faults or status else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
