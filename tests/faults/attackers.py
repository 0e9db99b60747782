"""Misbehaving clients in a process of their own.

``python -m tests.faults.attackers <kind> <url> <count>`` opens that many connections and prints
``ready``. When its standard input ends, it prints the fate of the connections.
"""

import asyncio
import json
import random
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tests.engines import tied_to_us

AT_ONCE = 200
"""Connections being opened concurrently; more would exceed the limits of the client's machine."""

TRICKLE_SECONDS = 1.0

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: close(2) sends RST instead of FIN."""

GET = b"GET %b HTTP/1.1\r\nHost: catalog\r\n\r\n"
LARGE = b"/api/products?limit=1000"
BODY_BYTES = 100_000
POST = (
    b"POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % BODY_BYTES
)


@dataclass(frozen=True, slots=True)
class Fate:
    """Fate of the attackers' connections.

    Attributes:
        opened: connections opened.
        held: connections that the peer has not closed.
        seconds: lifetime of the longest-lived connection among the closed ones.
    """

    opened: int
    held: int
    seconds: float


class Attacker:
    """A client with one connection.

    Attributes:
        seconds: time until the peer closed the connection; None while it is open.
    """

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._address = host, int(port)
        self.seconds: float | None = None

    async def connect(self, *, receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer:
            # Set before connect, so that the announced window reflects it.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(connection, self._address)
        return connection

    async def trickle(self, begin: bytes, piece: bytes) -> None:
        """Send a prefix, then a piece about once a second; read until the end of the connection."""
        loop = asyncio.get_running_loop()
        with await self.connect() as connection:
            began = loop.time()
            with suppress(OSError):
                await loop.sock_sendall(connection, begin)
                ended = asyncio.create_task(self._end_of(connection))
                while not ended.done():
                    await asyncio.wait([ended], timeout=TRICKLE_SECONDS * (0.5 + random.random()))  # noqa: S311 (not all at once)
                    if piece and not ended.done():
                        await loop.sock_sendall(connection, piece)
            self.seconds = loop.time() - began

    async def _end_of(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(connection, 4096):
                pass

    async def heads(self) -> None:
        """Send a header section that never ends."""
        await self.trickle(b"GET /api/products HTTP/1.1\r\nHost: catalog\r\nX-Slow: ", b"a")

    async def bodies(self) -> None:
        """Send a body that never ends, one byte at a time."""
        await self.trickle(POST + b'{"username": "', b"a")

    async def stalled_bodies(self) -> None:
        """Send the beginning of a body, then stall."""
        await self.trickle(POST + b'{"username": "', b"")

    async def idle(self) -> None:
        """Open a connection and send nothing."""
        await self.trickle(b"", b"")

    async def readers(self) -> None:
        """Request a large page and never read it; a drop is detected by the reset."""
        loop = asyncio.get_running_loop()
        with await self.connect(receive_buffer=4096) as connection:
            began = loop.time()
            with suppress(OSError):
                await loop.sock_sendall(connection, GET % LARGE)
                while not is_closed(connection):
                    await asyncio.sleep(0.1)
            self.seconds = loop.time() - began

    async def resets(self) -> None:
        """Reset requests at random points, again and again."""
        while True:
            with suppress(OSError), await self.connect() as connection:
                data = random.choice([GET % LARGE, POST + b"{}", GET % b"/api/products"])  # noqa: S311
                data = data[: random.randint(0, len(data))] if random.random() < 0.5 else data  # noqa: S311
                await asyncio.get_running_loop().sock_sendall(connection, data)
                await asyncio.sleep(random.random() * 0.05)  # noqa: S311
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await asyncio.sleep(0.1)

    async def leavers(self) -> None:
        """Send a request, shut down the sending side and read nothing."""
        while True:
            with suppress(OSError), await self.connect() as connection:
                await asyncio.get_running_loop().sock_sendall(connection, GET % LARGE)
                connection.shutdown(socket.SHUT_WR)
                await asyncio.sleep(0.2)
            await asyncio.sleep(0.1)


def is_closed(connection: socket.socket) -> bool:
    """Tell whether the peer has closed a connection, which may still hold unread bytes.

    TCP_INFO begins with the state; 1 is ESTABLISHED.
    """
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1


async def _run(kind: str, url: str, number: int) -> None:
    places = asyncio.Semaphore(AT_ONCE)
    attackers = [Attacker(url) for _ in range(number)]

    async def opened(attacker: Attacker) -> asyncio.Task[Any]:
        async with places:
            behave: Callable[[], Awaitable[None]] = getattr(attacker, kind)
            task = asyncio.ensure_future(behave())
            await asyncio.sleep(0.01)
            return task

    tasks = await asyncio.gather(*map(opened, attackers))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    end = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(end), sys.stdin
    )
    await end.read()
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    refused = sum(isinstance(each, OSError) for each in ends)
    over = [attacker.seconds for attacker in attackers if attacker.seconds is not None]
    held = number - len(over) - refused
    sys.stdout.write(json.dumps([number - refused, held, max(over, default=0.0)]) + "\n")


class Attack:
    """A running attack."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.began = time.monotonic()

    async def end(self) -> Fate:
        """Close the remaining connections; return the fate of all."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        fate = Fate(*json.loads(await self._process.stdout.readline()))
        await self._process.wait()
        return fate


@asynccontextmanager
async def attack(kind: str, url: str, count: int) -> AsyncIterator[Attack]:
    """Run ``count`` attackers of a kind; all are connected when the block begins."""
    process = await asyncio.create_subprocess_exec(
        *(*tied_to_us(), sys.executable, "-m", "tests.faults.attackers", kind, url, str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield Attack(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
