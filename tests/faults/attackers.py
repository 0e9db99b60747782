"""Misbehaving clients in a process of their own.

``python -m tests.faults.attackers <kind> <url> <count>`` opens that many connections and prints
``ready``. When its standard input ends, it prints the fate of the connections.

One epoll loop serves all connections. With a task and a timer for each of them, the attackers
would compete with the service for the processor, and other clients would be slower for that alone.
"""

import asyncio
import heapq
import json
import math
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.engines import tied_to_us

AT_ONCE = 200
"""Connections opened between two pauses; more would exceed the limits of the client's machine."""

PAUSE_SECONDS = 0.01
CONNECT_SECONDS = 10.0
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

Steps = Generator[float, None, None]
"""Behaviour of an attacker: it yields the seconds until its next step."""


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

    Args:
        kind: the name of a behaviour below.
        address: host and port of the server.

    Attributes:
        connection: a connection whose end is awaited; None before and after.
        events: of epoll to await for it.
        is_refused: whether it could not be opened.
        seconds: time until the peer closed it; None while it is open.
    """

    def __init__(self, kind: str, address: tuple[str, int]) -> None:
        behave: Callable[[], Steps] = getattr(self, kind)
        self.connection: socket.socket | None = None
        self.events = select.EPOLLIN
        self.is_refused = False
        self.seconds: float | None = None
        self._address = address
        self._began = 0.0
        self._steps = behave()

    def step(self) -> float:
        """Take the next step; return the seconds until the one after it, which may be infinite."""
        try:
            return next(self._steps)
        except OSError:
            self.is_refused = self.connection is None
            self.close()
            return math.inf
        except StopIteration:
            return math.inf

    def receive(self) -> None:
        """Discard received bytes; close the connection if the peer has."""
        assert self.connection is not None
        try:
            # Readers await the end alone, and never read.
            while self.events == select.EPOLLIN and self.connection.recv(4096):
                pass
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        """Close the connection, which the peer has closed; end the behaviour."""
        if self.connection is not None:
            self.seconds = time.monotonic() - self._began
            self.connection.close()
            self.connection = None
        self._steps.close()

    def _connect(self, *, receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(CONNECT_SECONDS)
        if receive_buffer:
            # Set before connect, so that the announced window reflects it.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            connection.connect(self._address)
        except OSError:
            connection.close()
            raise
        connection.setblocking(False)
        return connection

    def _hold(self, begin: bytes, *, receive_buffer: int = 0) -> socket.socket:
        """Open a connection whose end is awaited, and send a prefix."""
        self.connection = self._connect(receive_buffer=receive_buffer)
        self._began = time.monotonic()
        self.connection.send(begin)
        return self.connection

    def _trickle(self, begin: bytes) -> Steps:
        """Send a prefix, then a byte about once a second."""
        connection = self._hold(begin)
        while True:
            yield TRICKLE_SECONDS * (0.5 + random.random())  # noqa: S311 (not all at once)
            connection.send(b"a")

    def heads(self) -> Steps:
        """Send a header section that never ends."""
        return self._trickle(b"GET /api/products HTTP/1.1\r\nHost: catalog\r\nX-Slow: ")

    def bodies(self) -> Steps:
        """Send a body that never ends, one byte at a time."""
        return self._trickle(POST + b'{"username": "')

    def stalled_bodies(self) -> Steps:
        """Send the beginning of a body, then stall."""
        self._hold(POST + b'{"username": "')
        yield math.inf

    def idle(self) -> Steps:
        """Open a connection and send nothing."""
        self._hold(b"")
        yield math.inf

    def readers(self) -> Steps:
        """Request a large page and never read it."""
        # The end of the connection, even behind unread bytes.
        self.events = select.EPOLLRDHUP
        self._hold(GET % LARGE, receive_buffer=4096)
        yield math.inf

    def resets(self) -> Steps:
        """Reset requests at random points, again and again."""
        while True:
            with suppress(OSError), self._connect() as connection:
                data = random.choice([GET % LARGE, POST + b"{}", GET % b"/api/products"])  # noqa: S311
                data = data[: random.randint(0, len(data))] if random.random() < 0.5 else data  # noqa: S311
                connection.send(data)
                yield random.random() * 0.05  # noqa: S311
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            yield 0.1

    def leavers(self) -> Steps:
        """Send a request, shut down the sending side and read nothing."""
        while True:
            with suppress(OSError), self._connect() as connection:
                connection.send(GET % LARGE)
                connection.shutdown(socket.SHUT_WR)
                yield 0.2
            yield 0.1


def _run(kind: str, url: str, number: int) -> None:
    host, _, port = url.removeprefix("http://").rpartition(":")
    attackers = [Attacker(kind, (host, int(port))) for _ in range(number)]
    poll = select.epoll()
    by_descriptor: dict[int, Attacker] = {}
    due: list[tuple[float, int]] = []

    def step(index: int) -> None:
        if (seconds := attackers[index].step()) < math.inf:
            heapq.heappush(due, (time.monotonic() + seconds, index))

    for index, attacker in enumerate(attackers):
        step(index)
        if attacker.connection is not None:
            by_descriptor[attacker.connection.fileno()] = attacker
            # Closing a descriptor removes it.
            poll.register(attacker.connection, attacker.events)
        if index % AT_ONCE == AT_ONCE - 1:
            time.sleep(PAUSE_SECONDS)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    end = sys.stdin.fileno()
    poll.register(end, select.EPOLLIN)
    is_ended = False
    while not is_ended:
        for descriptor, _ in poll.poll(max(0.0, due[0][0] - time.monotonic()) if due else None):
            if descriptor == end:
                is_ended = True
            else:
                by_descriptor[descriptor].receive()
        while due and due[0][0] <= time.monotonic():
            step(heapq.heappop(due)[1])
    refused = sum(attacker.is_refused for attacker in attackers)
    over = [attacker.seconds for attacker in attackers if attacker.seconds is not None]
    held = number - len(over) - refused
    sys.stdout.write(json.dumps([number - refused, held, max(over, default=0.0)]) + "\n")


class Attack:
    """A running attack."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def processor_seconds(self) -> float:
        """Return the processor time that the attackers have used so far."""
        # proc_pid_stat(5): utime and stime are fields 14 and 15; the second one may have blanks.
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

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
    _run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
