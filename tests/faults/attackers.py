"""Clients that behave badly on purpose, in a process of their own.

``python -m tests.faults.attackers <kind> <url> <count>`` opens that many connections, prints
``ready``, and, when its standard input ends, what became of them.
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
"""Connections that are being opened; more would meet the limits of the client's own machine."""

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
    """What became of the attackers.

    Attributes:
        opened: connections.
        held: those that the other side has not closed.
        seconds: how long the last of the others was open.
    """

    opened: int
    held: int
    seconds: float


class Attacker:
    """One connection.

    Attributes:
        seconds: how long it was open until the other side closed it; None if it has not.
    """

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._address = host, int(port)
        self.seconds: float | None = None

    async def connect(self, *, receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer:
            # Before it is connected, so that the window is announced accordingly.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(connection, self._address)
        return connection

    async def trickle(self, begin: bytes, piece: bytes) -> None:
        """Send a beginning and a piece a second; read what comes until the end."""
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
        """A head that never ends."""
        await self.trickle(b"GET /api/products HTTP/1.1\r\nHost: catalog\r\nX-Slow: ", b"a")

    async def bodies(self) -> None:
        """A body that never ends, a byte at a time."""
        await self.trickle(POST + b'{"username": "', b"a")

    async def stalled_bodies(self) -> None:
        """A body that stops."""
        await self.trickle(POST + b'{"username": "', b"")

    async def idle(self) -> None:
        """Nothing at all."""
        await self.trickle(b"", b"")

    async def readers(self) -> None:
        """A large page that is not read. Dropped is noticed by the reset, not by reading."""
        loop = asyncio.get_running_loop()
        with await self.connect(receive_buffer=4096) as connection:
            began = loop.time()
            with suppress(OSError):
                await loop.sock_sendall(connection, GET % LARGE)
                while not is_closed(connection):
                    await asyncio.sleep(0.1)
            self.seconds = loop.time() - began

    async def resets(self) -> None:
        """A request that is reset in the middle of everything, again and again."""
        while True:
            with suppress(OSError), await self.connect() as connection:
                data = random.choice([GET % LARGE, POST + b"{}", GET % b"/api/products"])  # noqa: S311
                data = data[: random.randint(0, len(data))] if random.random() < 0.5 else data  # noqa: S311
                await asyncio.get_running_loop().sock_sendall(connection, data)
                await asyncio.sleep(random.random() * 0.05)  # noqa: S311
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await asyncio.sleep(0.1)

    async def leavers(self) -> None:
        """A request after which the client closes its side and reads nothing."""
        while True:
            with suppress(OSError), await self.connect() as connection:
                await asyncio.get_running_loop().sock_sendall(connection, GET % LARGE)
                connection.shutdown(socket.SHUT_WR)
                await asyncio.sleep(0.2)
            await asyncio.sleep(0.1)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended a connection, which may still hold unread bytes.

    TCP_INFO begins with the state; 1 is established.
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
    """Running attackers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.began = time.monotonic()

    async def end(self) -> Fate:
        """Close the connections that are left; tell what became of all."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        fate = Fate(*json.loads(await self._process.stdout.readline()))
        await self._process.wait()
        return fate


@asynccontextmanager
async def attack(kind: str, url: str, count: int) -> AsyncIterator[Attack]:
    """Run so many attackers of a kind; all of them are connected when the block begins."""
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
