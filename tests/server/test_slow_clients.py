"""Clients that read or send slowly do not harm others.

Tested on the processes that are shipped, over real sockets.
"""

import asyncio
import json
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest

from tests.server.service import Catalog, Service

READERS = 100
MOST_BYTES = 200 * 1024 * 1024
"""The memory that all of them together may make the workers hold: an eighth of their responses.

What is being read and rendered at a time depends on the machine.
"""

TIMEOUT_SECONDS = 3
DROPPED_SECONDS = 60.0
TRICKLERS = 700

LONG = "\N{ELECTRIC LIGHT BULB}" * 4000
PRODUCTS = 1600
"""Some 26 MB, enough for a hundred different pages that begin at different prices."""


def resident_bytes(service: Service) -> int:
    """Return the anonymous resident memory of all workers."""
    total = 0
    for pid in service.workers:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += int(line.split()[1]) * 1024
    return total


def held_ports(service: Service) -> set[int]:
    """Return the ports of clients with unread data in the kernel or the service."""
    own = int(service.url.rpartition(":")[2])
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues = line.split()[:5]
        if int(local.rpartition(":")[2], 16) == own and not queues.startswith("00000000:"):
            ports.add(int(remote.rpartition(":")[2], 16))
    return ports


async def fill(service: Service, token: str) -> None:
    """Import long products, each at a price of its own."""
    lines = "".join(
        json.dumps({"name": f"Lamp {number}", "price": number, "description": LONG}) + "\n"
        for number in range(PRODUCTS)
    ).encode()
    connection = await service.connect()
    head = [
        "POST /api/products HTTP/1.1",
        "Host: catalog",
        "Content-Type: application/x-ndjson",
        f"Authorization: Bearer {token}",
        f"Content-Length: {len(lines)}",
    ]
    await connection.send("\r\n".join([*head, "", ""]).encode() + lines)
    answer = await connection.answer()
    assert json.loads(answer.body)["created"] == PRODUCTS, answer.body
    await connection.close()


@pytest.fixture(scope="module")
async def filled_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with long products, which takes longer to fill than any test runs."""
    catalog = Catalog(tmp_path_factory.mktemp("filled"))
    async with catalog.start() as service:
        await service.serving()
        await fill(service, await service.sign_up())
        # A clean stop leaves no write-ahead log beside the file.
        service.send_signal(signal.SIGTERM)
        assert await service.exit_code() == 0
    return catalog.folder / "catalog.db"


@pytest.fixture
async def filled(catalog: Catalog, filled_database: Path) -> AsyncIterator[Service]:
    """Start two workers on a copy of that database."""
    shutil.copy(filled_database, catalog.folder / "catalog.db")
    catalog.definitions["catalog.http.response_buffers"] = f"STALL_SECONDS = {TIMEOUT_SECONDS}"
    catalog.definitions["catalog.server.sockets"] = f"STALL_SECONDS = {TIMEOUT_SECONDS + 1}"
    async with catalog.start("--workers=2") as service:
        await service.serving()
        # Warm the workers' caches, whose memory must not be attributed to the clients.
        for number in range(100):
            await service.get(f"/api/products?limit=1000&max_price={number + 20}")
        yield service


class Reader:
    """A client with a tiny receive buffer that sends a request, and reads on demand."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.taken = b""

    @classmethod
    async def asking(cls, service: Service, path: str, *fields: str) -> "Reader":
        host, _, port = service.url.removeprefix("http://").rpartition(":")
        sock = socket.socket()
        # Set before connecting, so that no larger window is advertised.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (host, int(port)))
        lines = [f"GET {path} HTTP/1.1", "Host: catalog", *fields, "", ""]
        await loop.sock_sendall(sock, "\r\n".join(lines).encode())
        return cls(sock)

    @property
    def port(self) -> int:
        """The local port."""
        port: int = self.socket.getsockname()[1]
        return port

    async def take(self, size: int) -> int:
        """Read up to that many bytes; return the number, 0 at the end."""
        piece = await asyncio.get_running_loop().sock_recv(self.socket, size)
        self.taken += piece
        return len(piece)


@asynccontextmanager
async def readers(
    service: Service, path_of: Callable[[int], str], *fields: str
) -> AsyncIterator[None]:
    """Open ``READERS`` clients that have sent a request."""
    asked = [await Reader.asking(service, path_of(number), *fields) for number in range(READERS)]
    try:
        yield
    finally:
        for reader in asked:
            reader.socket.close()


SAME = "/api/products?limit=1000"


@pytest.mark.parametrize(
    ("path_of", "fields"),
    [
        pytest.param(lambda _: SAME, (), id="same-page"),
        pytest.param(lambda number: f"{SAME}&min_price={number}&sort=price", (), id="pages"),
        pytest.param(lambda number: f"{SAME}&q=lamp&min_price={number}", (), id="searches"),
        pytest.param(lambda _: "/api/products", ("Accept: application/x-ndjson",), id="exports"),
        pytest.param(lambda _: "/api/products/changes?since=0&limit=1000", (), id="changes"),
        pytest.param(
            lambda _: "/api/products/changes?since=0", ("Accept: text/event-stream",), id="streams"
        ),
    ],
)
async def test_readers_that_read_nothing_are_bounded_and_dropped(
    filled: Service, path_of: Callable[[int], str], fields: tuple[str, ...]
) -> None:
    service = filled
    before = highest = resident_bytes(service)
    began = monotonic()

    async with readers(service, path_of, *fields):
        answered = most_held = 0
        # Refusals are short, and fit into the buffers.
        while (held := held_ports(service)) or not most_held:
            answer = await service.get("/api/products?limit=1")
            # While all of them are being read for, the database may have no connection free for a
            # moment on a busy machine.
            assert answer.status in {200, 503}
            answered += answer.status == 200
            highest = max(highest, resident_bytes(service))
            most_held = max(most_held, len(held))
            assert monotonic() - began < DROPPED_SECONDS, len(held)
            await asyncio.sleep(0.05)

    # Others are answered meanwhile; how many depends on the machine.
    assert answered
    # The rest of the readers was refused.
    assert most_held >= READERS // 10
    assert highest - before <= MOST_BYTES


async def test_slow_but_steady_reader_gets_the_whole_page(filled: Service) -> None:
    service = filled
    whole = (await service.get(SAME)).body
    assert len(whole) > 900_000
    reader = await Reader.asking(service, SAME)
    began = monotonic()

    # Takes three times as long as the time-out.
    while len(reader.taken.partition(b"\r\n\r\n")[2]) < len(whole):
        assert await reader.take(len(whole) // 100)
        await asyncio.sleep(TIMEOUT_SECONDS * 3 / 100)
    reader.socket.close()

    assert monotonic() - began > 2 * TIMEOUT_SECONDS
    assert reader.taken.endswith(whole[-1000:])


async def test_trickling_bodies_occupy_no_slots_of_reads_and_writes(catalog: Catalog) -> None:
    async with catalog.start("--workers=2") as service:
        await service.serving()
        token = await service.sign_up()
        head = (
            b"POST /api/products HTTP/1.1\r\nHost: catalog\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: 100\r\n\r\n{" % token.encode()
        )
        tricklers = [await service.connect() for _ in range(TRICKLERS)]
        for trickler in tricklers:
            await trickler.send(head)
        statuses = []
        client = await service.connect()
        for number in range(100):
            product = {"name": f"Lamp {number}", "price": 1}
            created = await client.ask("POST", "/api/products", token=token, body=product)
            read = await client.get(f"/api/products/{json.loads(created.body)['id']}")
            mine = await client.get("/api/products/my", f"Authorization: Bearer {token}")
            statuses += [created.status, read.status, mine.status]

    assert statuses == [201, 200, 200] * 100
