"""Followers of the changes: the time from a create to its event at each of them."""

import asyncio
import time
from contextlib import suppress

from tests.load.contestants import BEHIND_NGINX, EARLIER_BEHIND_NGINX, Contestant
from tests.load.sign_in import percentile
from tests.load.workloads.turns import Turns, say
from tests.load.wrk import BODY
from tests.server.service import Connection

FOLLOWERS = 1000
AT_ONCE = 100
"""Followers that connect at a time: of more, a busy client would send some requests too late."""

CREATES = 20
TIMEOUT_SECONDS = 30

_HEAD = (
    "GET /api/products/changes?since={since} HTTP/1.1\r\nHost: catalog\r\n"
    "Accept: text/event-stream\r\n\r\n"
)


async def sse(turns: Turns) -> None:
    """Let 1,000 clients follow the changes while products are created one after the other."""
    for name in (*turns.services, *turns.present(BEHIND_NGINX, EARLIER_BEHIND_NGINX)):
        contestant = turns.contestants[name]
        for _ in range(turns.options.rounds):
            try:
                latencies = await _follow(contestant, turns.token(turns.service_of(contestant)))
            except (OSError, EOFError) as error:
                say(f"{contestant.title}: {error!r}")
                continue
            turns.record(
                "sse",
                contestant,
                {
                    "events": len(latencies),
                    "p50 ms": percentile(latencies, 50),
                    "p99 ms": percentile(latencies, 99),
                    "max ms": max(latencies),
                },
            )


async def _follow(contestant: Contestant, token: str) -> list[float]:
    """Return the milliseconds from each create's request to its event, at each follower."""
    since = contestant.position()
    followers = [Follower(contestant.url, since) for _ in range(FOLLOWERS)]
    creator: Connection | None = None
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            for first in range(0, FOLLOWERS, AT_ONCE):
                await asyncio.gather(*(each.open() for each in followers[first : first + AT_ONCE]))
        # Not earlier: nginx closes connections that send nothing for 5 s.
        creator = await Connection.open(contestant.url)
        sent: list[float] = []
        for number in range(1, CREATES + 1):
            sent.append(time.perf_counter())
            answer = await creator.ask("POST", "/api/products", token=token, body=BODY)
            if answer.status != 201:
                raise ConnectionError(f"A create is answered {answer.status}.")
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await asyncio.gather(*(each.wait(number) for each in followers))
        return [
            1000 * (received - at)
            for each in followers
            for at, received in zip(sent, each.received, strict=True)
        ]
    finally:
        if creator is not None:
            await creator.close()
        await asyncio.gather(*(each.close() for each in followers))


class Follower:
    """A client that follows the changes after a position.

    Attributes:
        received: the time of each event.
    """

    def __init__(self, url: str, since: int) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._since = since
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self.received: list[float] = []

    async def open(self) -> None:
        """Connect, and wait for the beginning of the stream.

        Raises:
            ConnectionError: the answer is not an event stream.
        """
        reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(_HEAD.format(since=self._since).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(head.decode())
        await reader.readuntil(b":\n\n")
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            if line.startswith(b"data:"):
                self.received.append(time.perf_counter())
                self._news.set()

    async def wait(self, count: int) -> None:
        """Wait until so many events have been received."""
        while len(self.received) < count:
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None:
        """Disconnect; idempotent."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await self._reading
        if self._writer is not None:
            self._writer.close()
