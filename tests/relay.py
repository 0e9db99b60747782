"""A stretch of network between the service and its database that can fail, on loopback."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy import URL


class Relay:
    """Passes bytes between clients and a server until told otherwise.

    Attributes:
        url: the database's URL through here.
        clients: connections that are open now.
    """

    def __init__(self, target: URL) -> None:
        self.url = target
        self.clients = 0
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        # Ends that face the service, and how many bytes they may still pass on to it.
        self._accepted: set[asyncio.StreamWriter] = set()
        self._left: dict[asyncio.StreamWriter, int] = {}
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Accept connections, again on the same port after ``refuse``."""
        port = 0 if self._target is self.url else self.url.port
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port)
        port = self._listener.sockets[0].getsockname()[1]
        self.url = self._target.set(host="127.0.0.1", port=port)

    def stall(self) -> None:
        """Accept connections and swallow nothing, but pass nothing on: a server that hangs."""
        self._flows.clear()

    def resume(self) -> None:
        """Pass on what was held back, and all that follows."""
        self._flows.set()

    def cut(self) -> None:
        """Break every connection, as a server does that is killed."""
        for writer in self._writers:
            writer.transport.abort()

    def reset(self) -> int:
        """Reset every connection (RST), as firewalls and proxies do; tell how many there were."""
        for writer in self._accepted:
            _reset(writer)
        return len(self._accepted)

    def close_idle(self) -> int:
        """End every connection in the server's direction alone (FIN); tell how many there were."""
        for writer in self._accepted:
            if not writer.is_closing():
                with suppress(OSError):
                    writer.write_eof()
        return len(self._accepted)

    def cut_after(self, size: int) -> None:
        """Reset each connection as soon as it has passed that many more bytes of answers."""
        self._left = dict.fromkeys(self._accepted, size)

    def heal(self) -> None:
        """Cut nothing any more."""
        self._left.clear()

    def refuse(self) -> None:
        """Break every connection and accept no more: a server that is gone."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()

    async def close(self) -> None:
        """End everything."""
        self.refuse()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.clients += 1
        writers = {writer}
        self._writers.add(writer)
        self._accepted.add(writer)
        try:
            # Not even a greeting comes from a server that hangs.
            await self._flows.wait()
            there, back = await asyncio.open_connection(self._target.host, self._target.port)
            writers.add(back)
            self._writers.add(back)
            pumps = [
                asyncio.create_task(self._pump(*ends)) for ends in ((reader, back), (there, writer))
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self.clients -= 1
            self._accepted.discard(writer)
            self._left.pop(writer, None)
            for each in writers:
                each.transport.abort()
            self._writers -= writers
            self._connections.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flows.wait()
                left = self._left.get(writer)
                if left is not None:
                    data = data[:left]
                    self._left[writer] = left - len(data)
                writer.write(data)
                await writer.drain()
                if left is not None and left <= len(data):
                    _reset(writer)
                    return


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST instead of FIN, which is what a lingering of 0 seconds means."""
    connection = writer.get_extra_info("socket")
    if not writer.is_closing() and connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@asynccontextmanager
async def relayed(target: URL) -> AsyncIterator[Relay]:
    """Give a relay that leads to a server for as long as the block lasts."""
    relay = Relay(target)
    await relay.listen()
    try:
        yield relay
    finally:
        await relay.close()
