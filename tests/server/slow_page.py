"""A stub of the service, for tests of what nginx does while a page is late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.server.service import Connection
from tests.server.shop import PATH
from tests.support import until


class SlowPage:
    """A stub of the service that delays one page, and reads no bodies.

    Args:
        takes_writes: whether it answers writes, or closes the connection.

    Attributes:
        asked: the number of requests for the page.
        delivery: an event that releases the page.
    """

    PATH = f"{PATH}?limit=7"

    def __init__(self, *, takes_writes: bool = True) -> None:
        self.url = ""
        self.asked = 0
        self._takes_writes = takes_writes
        self.delivery = asyncio.Event()
        self._position = 5

    @asynccontextmanager
    async def run(self) -> AsyncIterator["SlowPage"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def is_asked_by(self, connection: Connection, *, asked: int) -> None:
        """Request the page through nginx, and wait until it was requested here so many times."""
        await connection.send(f"GET {self.PATH} HTTP/1.1\r\nHost: catalog\r\n\r\n".encode())
        await until(lambda: self.asked >= asked)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"POST"):
                    if not self._takes_writes:
                        break
                    self._position += 1
                position = self._position
                if head.startswith(f"GET {self.PATH} ".encode()):
                    self.asked += 1
                    await self.delivery.wait()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
                    b"Catalog-Position: %d\r\n\r\n" % position
                )
                # A poll of the position has no body.
                writer.write(b"" if head.startswith(b"HEAD") else b"{}")
        writer.close()
