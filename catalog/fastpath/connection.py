"""Connections on hypercorn: time-outs that cost a plain request nothing, and counted output."""

import asyncio
import errno
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.events import Closed, Event, RawData, Updated

from catalog.fastpath.output import Parts
from catalog.http.middleware.lingering_close import LINGER_SECONDS
from catalog.http.response_buffers import ResponseBuffers

HEAD_SECONDS = 8.0
"""Time-out from the first byte of a request's head to its last. nginx, in front, has 5 s."""


class PlainTCPServer(TCPServer):
    """Connection whose idle timer is not restarted by every plain request.

    It closes when the client disconnects: the parent keeps the socket until the timer expires, so
    that many clients with one request each exhaust the process's file descriptors.
    """

    buffers: ResponseBuffers
    _has_ended = False

    async def run(self) -> None:
        """Run the connection; a send waits until the kernel has taken all bytes."""
        self.writer.transport.set_write_buffer_limits(high=0)
        try:
            await super().run()
        except OSError as error:
            # The client has reset the connection before its half was closed for writing. The parent
            # expects the other errors of closing.
            if error.errno != errno.ENOTCONN:
                raise
        finally:
            self._untie()

    def _untie(self) -> None:
        """Break the reference cycles of the ended connection, so that it is freed at once.

        The garbage collector would free it, but one that outlives two of its runs only after a
        hundred more: hundreds of connections, of 8 kB each, would wait for that.
        """
        # Absent if the client had disconnected before the connection was set up.
        wrapper: Any = getattr(self, "protocol", None)
        if wrapper is not None:
            wrapper.send = wrapper.protocol.send = _discard
            # Its incomplete head no longer counts.
            wrapper.protocol.head.note(0)

    def protocol_send(self, event: Event) -> Coroutine[Any, Any, None]:
        """Send an event; after the client's disconnect the idle timer is not started again."""
        if isinstance(event, RawData):
            return self._send((event.data,))
        if isinstance(event, Parts):
            return self._send(event.parts)
        return self._follow(event)

    async def _follow(self, event: Event) -> None:
        if isinstance(event, Closed) and self._has_failed():
            self._close_later()
        elif not (self._has_ended and isinstance(event, Updated)):
            await super().protocol_send(event)

    def _has_failed(self) -> bool:
        protocol: Any = self.protocol.protocol
        has_failed: bool = protocol.has_failed
        return has_failed

    def _close_later(self) -> None:
        """Close the connection for writing now, and for reading when the client has stopped."""
        with suppress(OSError, RuntimeError, NotImplementedError):
            self.writer.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.writer.close)

    async def _send(self, parts: Sequence[bytes]) -> None:
        transport = self.writer.transport
        try:
            if self.send_lock.locked():
                async with self.send_lock:
                    self._write(parts)
                    await self._drain(parts)
                return
            self._write(parts)
            if transport.get_write_buffer_size() or transport.is_closing():
                async with self.send_lock:
                    await self._drain(parts)
        except (ConnectionError, RuntimeError):
            await self.protocol.handle(Closed())

    async def _drain(self, parts: Sequence[bytes]) -> None:
        """Wait until the kernel has taken all bytes; track the parts meanwhile."""
        with self.buffers.holding(self.writer.transport, parts):
            await self.writer.drain()

    def _write(self, parts: Sequence[bytes]) -> None:
        if len(parts) == 1:
            self.writer.transport.write(parts[0])
        else:
            self.writer.transport.writelines(parts)

    async def _read_data(self) -> None:
        # Unlike the parent's, with a time-out for incomplete heads only, because it costs a timer.
        protocol: Any = self.protocol.protocol
        while not self.reader.at_eof():
            try:
                if protocol.head.began_at:
                    async with asyncio.timeout_at(protocol.head.began_at + HEAD_SECONDS):
                        data = await self.reader.read(MAX_RECV)
                else:
                    data = await self.reader.read(MAX_RECV)
            except OSError:
                # Includes TimeoutError.
                break
            # Not through the wrapper, which would switch to HTTP/2.
            await protocol.handle(RawData(data))
            # Up to 64 KiB, which would be kept while the connection waits for more.
            del data
        self._has_ended = True
        await self.idle_task.stop()
        await self.protocol.handle(Closed())

    async def _idle_timeout(self) -> None:
        """Close the connection after the keep-alive time-out, counted from the last response.

        Responses of the direct path do not restart the timer, so their time is looked up here.
        """
        protocol: Any = self.protocol.protocol
        keep_alive_seconds = self.config.keep_alive_timeout
        began = self.loop.time()
        idle_since = began
        while (left := idle_since + keep_alive_seconds - self.loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self.context.terminated.wait()
                break
            except TimeoutError:
                is_answering = protocol.is_answering
                idle_since = self.loop.time() if is_answering else max(began, protocol.answered_at)
        # A response in progress is the last one, and closes the connection itself.
        if not protocol.is_answering:
            await asyncio.shield(self._initiate_server_close())


async def _discard(_: Event) -> None:
    """Send nothing: the connection has ended."""
