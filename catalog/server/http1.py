"""HTTP/1.1 as we offer it: what hypercorn takes on top and cannot be told to leave out.

And its short way for plain requests. hypercorn runs every request in a task of its own, beside one
that reads on, with a timer that is cancelled and made anew; h11 checks what comes and goes. That is
right for requests that take long, and costs three quarters of one that does not.
"""

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import h11
import hypercorn.asyncio.run
import hypercorn.protocol
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import H11SendableEvent, HTTPScope

from catalog.http.request_body import WHOLE_BODY
from catalog.http.response_buffers import LARGE_BYTES, ResponseBuffers
from catalog.observability import metrics
from catalog.server.request_parser import Message, ResponseBuffer, parse

VERSIONS = {b"1.0", b"1.1"}

IsQuick = Callable[[HTTPScope], bool]

REFUSALS_A_SECOND = 1000
"""Refusals of a process after which it reads on without a pause; each costs some 0.2 ms."""

HEAD_SECONDS = 8.0
"""From the first byte of a request's head to its last. nginx, in front, waits 5 s."""

SHORTEST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 1.0
"""As long as those who are refused are asked to wait."""


class Parts(Event):
    """Bytes to send, in order; the transport is to keep these objects and make no copies."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[bytes]) -> None:
        self.parts = parts


def _sendable(parts: Sequence[bytes]) -> Event:
    """Parts as they are if they are large, and as one otherwise, which takes less time."""
    if sum(map(len, parts)) < LARGE_BYTES:
        return RawData(b"".join(parts))
    return Parts([part for part in parts if part])


class PlainH11Protocol(H11Protocol):
    """Stays with HTTP/1.1 for the whole connection, and answers plain requests itself.

    A proxy that forwards ``Upgrade: h2c`` and then relays bytes no longer sees the requests in
    them, so none of its rules apply. Ignoring the field is allowed (RFC 9110, section 7.8), and
    HTTP/2 without TLS has no other user here.

    Attributes:
        is_quick: whether a request's answer is short and is made even if the client hangs up, so
            that nobody needs to listen for that meanwhile.
        is_answering: whether such an answer is on its way.
        answered_at: when the last one went out, by the loop's clock.
        head_began_at: when a head began that is not complete yet, by the same clock; 0 if none is.
    """

    is_quick: IsQuick = staticmethod(lambda _: False)
    _refused_until = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_answering = False
        self.answered_at = 0.0
        self._head = b""
        self.head_began_at = 0.0

    async def handle(self, event: Event) -> None:
        """As the parent; a whole plain request between two others goes the short way."""
        if isinstance(event, RawData) and self._is_between_requests():
            message = parse(event.data)
            if message is not None and self.is_quick(scope := self._scope_of(message)):
                await self._answer(scope, message.body)
                return
        await super().handle(event)
        if isinstance(event, RawData):
            self._note_head()

    def _note_head(self) -> None:
        """Note whether a part of a head waits for the rest."""
        if self.stream is not None or not self.connection.trailing_data[0]:
            self.head_began_at = 0.0
        elif not self.head_began_at:
            self.head_began_at = asyncio.get_running_loop().time()

    def _is_between_requests(self) -> bool:
        connection = self.connection
        return (
            self.stream is None
            and connection.our_state is h11.IDLE
            and connection.their_state is h11.IDLE
            and connection.trailing_data == (b"", False)
        )

    def _scope_of(self, message: Message) -> HTTPScope:
        return {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "http_version": "1.1",
            "method": message.method.decode("ascii"),
            "scheme": "https" if self.ssl else "http",
            "path": message.path.decode("ascii"),
            "raw_path": message.path,
            "query_string": message.query,
            "root_path": self.config.root_path,
            "headers": message.fields,
            "client": self.client,
            "server": self.server,
            "state": self.connection_state.copy(),  # type: ignore[typeddict-item]  # as in the parent
            "extensions": {WHOLE_BODY: {}},
        }

    async def _answer(self, scope: HTTPScope, body: bytes) -> None:
        self.keep_alive_requests += 1
        is_last = self.keep_alive_requests >= self.config.keep_alive_max_requests
        answer = ResponseBuffer(body, is_last=is_last)
        self.is_answering = True
        try:
            await self.app(scope, answer.receive, answer.take, _unused, _unused)
            await self.send(_sendable(answer.parts))
        except Exception:  # noqa: BLE001 (the parent does the same)
            await self.config.log.exception("Error in ASGI Framework")
            await self._send_error_response(500)
            answer.is_last = True
        finally:
            self.is_answering = False
            self.answered_at = asyncio.get_running_loop().time()
        if answer.is_last or self.context.terminated.is_set():
            await self.send(Closed())
        elif answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            await self._pause()

    async def _pause(self) -> None:
        """Read on later, if many have been refused.

        Thousands who ask again at once, without end, would leave no time for what was let in.
        """
        now = asyncio.get_running_loop().time()
        until = max(now, PlainH11Protocol._refused_until) + 1 / REFUSALS_A_SECOND
        until = min(until, now + LONGEST_PAUSE_SECONDS)
        PlainH11Protocol._refused_until = until
        # A short one would cost more than it saves.
        if until - now > SHORTEST_PAUSE_SECONDS:
            await asyncio.sleep(until - now)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """As the parent, but the head goes out with what follows it, and a body uncopied."""
        if not isinstance(self.connection, h11.Connection):
            await super()._send_h11_event(event)
            return
        try:
            parts = self.connection.send_with_data_passthrough(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = b"".join(parts or ())
            return
        head, self._head = self._head, b""
        if head or parts:
            await self.send(_sendable([head, *(parts or ())]))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Decide nothing: the parent would switch to HTTP/2 here."""

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version not in VERSIONS:
            # RFC 9110, section 15.6.6; HTTP/2 with prior knowledge lands here too, as
            # "PRI * HTTP/2.0".
            await self._refuse(505)
        elif not request.method.isupper():
            # RFC 9110, section 9.1: methods are case-sensitive. The parent would make it capitals,
            # where a proxy's rules for GET did not apply.
            await self._refuse(501)
        else:
            await super()._create_stream(request)

    async def _refuse(self, status_code: int) -> None:
        await self._send_error_response(status_code)
        await self.send(Closed())

    async def _send_error_response(self, status_code: int) -> None:
        # What has a stream, or went the short way, has been counted by the application.
        if self.stream is None and not self.is_answering:
            metrics.count_request(metrics.OTHER, metrics.OTHER, status_code, 0.0)
        await super()._send_error_response(status_code)


def _unused(*_: Any) -> Any:
    """What only WSGI applications are given."""
    raise NotImplementedError


class PlainTCPServer(TCPServer):
    """A connection whose idle timer is not started anew by every plain request.

    And which ends when the client has gone: the parent keeps its socket until the timer has run
    out, so that many clients who come for one request each use up the process's descriptors.
    """

    buffers: ResponseBuffers
    _has_ended = False

    async def run(self) -> None:
        """As the parent, but to send is to wait until the kernel has all of it."""
        self.writer.transport.set_write_buffer_limits(high=0)
        await super().run()

    async def protocol_send(self, event: Event) -> None:
        """As the parent, but there is no idle time any more once the client has gone."""
        if isinstance(event, RawData):
            await self._send((event.data,))
        elif isinstance(event, Parts):
            await self._send(event.parts)
        elif not (self._has_ended and isinstance(event, Updated)):
            await super().protocol_send(event)

    async def _send(self, parts: Sequence[bytes]) -> None:
        transport = self.writer.transport
        async with self.send_lock:
            try:
                if len(parts) == 1:
                    transport.write(parts[0])
                else:
                    transport.writelines(parts)
                if transport.get_write_buffer_size():
                    with self.buffers.holding(transport, parts):
                        await self.writer.drain()
                else:
                    await self.writer.drain()
            except (ConnectionError, RuntimeError):
                await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        # As the parent, but with a time-out only for heads: it costs a timer.
        protocol: Any = self.protocol.protocol
        while not self.reader.at_eof():
            try:
                if protocol.head_began_at:
                    async with asyncio.timeout_at(protocol.head_began_at + HEAD_SECONDS):
                        data = await self.reader.read(MAX_RECV)
                else:
                    data = await self.reader.read(MAX_RECV)
            except OSError:
                # A time-out is one, too.
                break
            await self.protocol.handle(RawData(data))
        self._has_ended = True
        await self.idle_task.stop()
        await self.protocol.handle(Closed())

    async def _idle_timeout(self) -> None:
        """As the parent, but plain answers count as if they had started it."""
        protocol: Any = self.protocol.protocol
        patience = self.config.keep_alive_timeout
        began = self.loop.time()
        idle_since = began
        while (left := idle_since + patience - self.loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self.context.terminated.wait()
                break
            except TimeoutError:
                is_answering = protocol.is_answering
                idle_since = self.loop.time() if is_answering else max(began, protocol.answered_at)
        # One that is on its way is the last, and closes the connection itself.
        if not protocol.is_answering:
            await asyncio.shield(self._initiate_server_close())


def install(is_quick: IsQuick, buffers: ResponseBuffers) -> None:
    """Make hypercorn use it for connections from now on, in this process.

    Args:
        is_quick: tells a request with a short answer.
        buffers: watches what waits for clients.
    """
    # hypercorn has no setting and no factory for it; these names are where it looks them up.
    PlainH11Protocol.is_quick = staticmethod(is_quick)
    PlainTCPServer.buffers = buffers
    hypercorn.protocol.H11Protocol = PlainH11Protocol  # type: ignore[attr-defined]  # on purpose
    hypercorn.asyncio.run.TCPServer = PlainTCPServer  # type: ignore[attr-defined]  # on purpose
