"""TCP fault proxy on loopback that delays, swallows, cuts, resets and refuses.

It sits between the service and its database or store, or between clients and the service. Faults
can be switched at run time, for new connections alone or for open ones too.
"""

import asyncio
import random
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal, Self

from sqlalchemy import URL

_READ_BYTES = 64 * 1024
_MAX_CHUNKS = 16
"""Chunks buffered per direction; beyond that the sender feels back-pressure."""

_PIECES_PER_SECOND = 50
"""Writes per second into which a bandwidth limit divides the stream."""

_BACKLOG = 512
_ABORTIVE_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: close(2) sends RST instead of FIN."""

Side = Literal["client", "server"]


@dataclass(frozen=True, slots=True)
class Flow:
    """Treatment of the bytes in one direction.

    Attributes:
        delay_seconds: latency from arrival to departure; throughput is not affected.
        jitter_seconds: maximum random addition to the delay; the order of bytes is kept.
        bytes_per_second: bandwidth; None for no limit.
        cut_after_bytes: bytes in this direction after which both ends are closed.
        is_swallowed: read and discarded, so that the sender believes them delivered.
        is_held: buffered until another flow is set, which passes them on.
    """

    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0
    bytes_per_second: float | None = None
    cut_after_bytes: int | None = None
    is_swallowed: bool = False
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """Treatment of a connection: one flow for each direction."""

    to_server: Flow = Flow()
    to_client: Flow = Flow()

    @classmethod
    def delay(cls, seconds: float, jitter: float = 0.0) -> Self:
        """Delay both directions."""
        flow = Flow(delay_seconds=seconds, jitter_seconds=jitter)
        return cls(flow, flow)

    @classmethod
    def blackhole(cls) -> Self:
        """Accept connections and discard all bytes, in both directions."""
        return cls(Flow(is_swallowed=True), Flow(is_swallowed=True))

    @classmethod
    def stall(cls) -> Self:
        """Accept connections and hold all bytes, in both directions."""
        return cls(Flow(is_held=True), Flow(is_held=True))

    @classmethod
    def drop_answers(cls) -> Self:
        """Pass requests and discard the answers."""
        return cls(Flow(), Flow(is_swallowed=True))

    @classmethod
    def cut_after(cls, *, to_server: int | None = None, to_client: int | None = None) -> Self:
        """Close a connection after a number of bytes in one direction."""
        return cls(Flow(cut_after_bytes=to_server), Flow(cut_after_bytes=to_client))

    @classmethod
    def bandwidth(cls, bytes_per_second: float) -> Self:
        """Limit the bandwidth of each direction of each connection."""
        flow = Flow(bytes_per_second=bytes_per_second)
        return cls(flow, flow)


NONE = Fault()


class _Stream:
    """One direction of a connection: reads at once, writes as the flow allows."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: Flow
    ) -> None:
        self.flow = flow
        self.passed_bytes = 0
        self.is_cut = False
        self._reader = reader
        self._writer = writer
        # With the time of departure; empty bytes stand for EOF.
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._changed = asyncio.Event()

    def use(self, flow: Flow) -> None:
        self.flow = flow
        self._changed.set()

    async def run(self) -> None:
        """Pass bytes until EOF or until the flow cuts the connection."""
        reading = asyncio.create_task(self._read())
        try:
            await self._write()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        departure = 0.0
        while True:
            try:
                data = await self._reader.read(_READ_BYTES)
            except OSError:
                # A reset is passed on as a reset; see ``_Connection.run``.
                self.is_cut = True
                data = b""
            flow = self.flow
            if data and flow.is_swallowed:
                continue
            jitter = random.uniform(0, flow.jitter_seconds)  # noqa: S311 (not a secret)
            departure = max(departure, time.monotonic() + flow.delay_seconds + jitter)
            self._chunks.append((departure, data))
            self._changed.set()
            if not data:
                return
            while len(self._chunks) >= _MAX_CHUNKS:
                await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _write(self) -> None:
        while True:
            while not self._chunks or self.flow.is_held:
                await self._wait()
            departure, data = self._chunks[0]
            if (wait := departure - time.monotonic()) > 0:
                await asyncio.sleep(wait)
                continue
            self._chunks.popleft()
            self._changed.set()
            if not data or self.is_cut:
                break
            await self._pass(data)
            if self.is_cut:
                return
        while self.flow.is_swallowed and not self.is_cut:
            # TCP retransmits a lost FIN, so it arrives when the network recovers.
            await self._wait()
        if not self.is_cut:
            with suppress(OSError):
                self._writer.write_eof()

    async def _pass(self, data: bytes) -> None:
        limit = self.flow.cut_after_bytes
        if limit is not None:
            data = data[: max(0, limit - self.passed_bytes)]
        start = 0
        while start < len(data):
            rate = self.flow.bytes_per_second
            size = len(data) if rate is None else max(1, int(rate / _PIECES_PER_SECOND))
            piece = data[start : start + size]
            start += len(piece)
            try:
                self._writer.write(piece)
                await self._writer.drain()
            except OSError:
                self.is_cut = True
                return
            self.passed_bytes += len(piece)
            if rate is not None:
                await asyncio.sleep(len(piece) / rate)
        self.is_cut = limit is not None and self.passed_bytes >= limit


class _Connection:
    """A client's connection and its upstream connection."""

    def __init__(
        self, client: tuple[asyncio.StreamReader, asyncio.StreamWriter], fault: Fault
    ) -> None:
        self.fault = fault
        self.is_over = False
        self._client_reader, self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._streams: tuple[_Stream, _Stream] | None = None

    def use(self, fault: Fault) -> None:
        self.fault = fault
        if self._streams is not None:
            self._streams[0].use(fault.to_server)
            self._streams[1].use(fault.to_client)

    async def run(self, host: str, port: int) -> None:
        """Connect to the server and pass bytes until both directions have ended."""
        try:
            reader, self._server = await asyncio.open_connection(host, port)
            if self.is_over:
                return
            self._streams = (
                _Stream(self._client_reader, self._server, self.fault.to_server),
                _Stream(reader, self._client, self.fault.to_client),
            )
            running = {asyncio.create_task(stream.run()) for stream in self._streams}
            try:
                while running and not any(stream.is_cut for stream in self._streams):
                    _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        except OSError:
            # The server is unreachable: the client sees a reset.
            self.reset()
        finally:
            self.close()

    def cut_in(self, size: int) -> None:
        if self._streams is not None:
            passed = self._streams[1].passed_bytes
            self.use(Fault.cut_after(to_client=passed + size))

    def half_close(self, side: Side) -> None:
        writer = self._client if side == "client" else self._server
        if writer is not None and not writer.is_closing():
            with suppress(OSError):
                writer.write_eof()

    def close(self) -> None:
        """Close both ends with FIN and drop pending bytes; idempotent."""
        self.is_over = True
        for writer in self._writers:
            writer.transport.abort()

    def reset(self) -> None:
        """Close both ends with RST."""
        for writer in self._writers:
            if not writer.is_closing():
                with suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE_CLOSE
                    )
        self.close()

    @property
    def _writers(self) -> list[asyncio.StreamWriter]:
        return [self._client] if self._server is None else [self._client, self._server]


class FaultProxy:
    """A proxy that passes bytes between clients and a server, subject to faults.

    Args:
        host: of the server.
        port: of the server.

    Attributes:
        port: of the proxy, on 127.0.0.1; unchanged by ``refuse`` and ``listen``.
        accepted: connections accepted so far.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.accepted = 0
        self._target = (host, port)
        self._fault = NONE
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._fillers: list[socket.socket] = []
        self._open: dict[_Connection, asyncio.Task[None]] = {}

    @property
    def open_connections(self) -> int:
        """Number of open connections."""
        return len(self._open)

    async def listen(self) -> None:
        """Accept connections, again after ``refuse`` or ``ignore_connects``; idempotent."""
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        if self._socket is None:
            self._socket = socket.socket()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", self.port))
            self.port = self._socket.getsockname()[1]
        if self._listener is None:
            # A duplicate of the descriptor, so that the accept queue outlives the listener.
            self._listener = await asyncio.start_server(
                self._serve, sock=self._socket.dup(), backlog=_BACKLOG
            )

    def use(self, fault: Fault, *, for_open: bool = True) -> None:
        """Set the fault of new connections and, by default, of open ones."""
        self._fault = fault
        if for_open:
            for connection in self._open:
                connection.use(fault)

    def heal(self) -> None:
        """Pass all bytes, held ones too; swallowed ones stay lost."""
        self.use(NONE)

    def stall(self) -> None:
        """Hold all bytes, like a server that hangs."""
        self.use(Fault.stall())

    def cut(self) -> None:
        """Close every open connection with FIN, like a server that is killed."""
        for connection in list(self._open):
            connection.close()
        self._end_open()

    def reset(self) -> int:
        """Close every open connection with RST, like a firewall; return their number."""
        count = len(self._open)
        for connection in list(self._open):
            connection.reset()
        self._end_open()
        return count

    def _end_open(self) -> None:
        for task in self._open.values():
            task.cancel()

    def cut_in(self, size: int) -> None:
        """Close each open connection after so many more bytes to its client; spare new ones."""
        for connection in self._open:
            connection.cut_in(size)

    def half_close(self, side: Side) -> int:
        """Shut down sending towards one side of every open connection; return their number.

        The other direction stays open.
        """
        for connection in self._open:
            connection.half_close(side)
        return len(self._open)

    def refuse(self) -> None:
        """Close every connection and refuse new ones, like a server that is down."""
        self._stop_accepting()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.cut()

    def ignore_connects(self) -> None:
        """Leave new connects unanswered, like a firewall that drops; open ones stay."""
        if self._socket is None:
            return
        self._stop_accepting()
        # The kernel drops a SYN while the accept queue is full.
        self._socket.listen(0)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def _stop_accepting(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def close(self) -> None:
        """Close the listener and all connections; idempotent."""
        tasks = list(self._open.values())
        self.refuse()
        for filler in self._fillers:
            filler.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        connection = _Connection((reader, writer), self._fault)
        self._open[connection] = task
        try:
            await connection.run(*self._target)
        except asyncio.CancelledError:
            # From ``cut``, ``reset`` or ``close``; asyncio's servers would log it.
            connection.close()
        finally:
            del self._open[connection]


@asynccontextmanager
async def proxied(host: str, port: int) -> AsyncIterator[FaultProxy]:
    """Run a proxy to a server for the duration of the block."""
    proxy = FaultProxy(host, port)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()


class DatabaseProxy(FaultProxy):
    """A proxy to a database, with the URL that leads through it."""

    def __init__(self, target: URL) -> None:
        super().__init__(target.host or "127.0.0.1", target.port or 3306)
        self._url = target

    @property
    def url(self) -> URL:
        """URL of the database through the proxy."""
        return self._url.set(host="127.0.0.1", port=self.port)


@asynccontextmanager
async def relayed(target: URL) -> AsyncIterator[DatabaseProxy]:
    """Run a proxy to a database for the duration of the block."""
    proxy = DatabaseProxy(target)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()
