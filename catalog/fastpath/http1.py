"""HTTP/1.1 on hypercorn: restrictions that it cannot be configured for, and a fast path.

hypercorn runs every request in a task of its own beside one that keeps reading, cancels and
recreates a timer, and lets h11 validate both directions. That suits long requests, but makes up
three quarters of the cost of a short one. The fast path answers plain requests without it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import h11
import hypercorn.asyncio.run
import hypercorn.protocol
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import H11SendableEvent, HTTPScope

from catalog.fastpath.connection import PlainTCPServer
from catalog.fastpath.output import sendable
from catalog.fastpath.request_parser import Message, parse
from catalog.fastpath.response_buffer import ResponseBuffer, reason_of
from catalog.http.middleware.request_body import WHOLE_BODY
from catalog.http.response_buffers import ResponseBuffers
from catalog.observability import metrics

VERSIONS = {b"1.0", b"1.1"}

IsQuick = Callable[[HTTPScope], bool]

REFUSALS_A_SECOND = 1000
"""Rate of 503s per process beyond which reads are throttled; each costs some 0.2 ms."""

SHORTEST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 1.0
"""Equal to the ``Retry-After`` of rejected requests."""


class PlainH11Protocol(H11Protocol):
    """HTTP/1.1 protocol that never switches to HTTP/2, and answers plain requests itself.

    A proxy that forwards ``Upgrade: h2c`` and then relays bytes no longer sees the requests in
    them, so none of its rules apply. Ignoring the field is allowed (RFC 9110, section 7.8), and
    HTTP/2 without TLS has no other user here.

    Attributes:
        is_quick: returns whether a request's response is short and is completed even if the client
            disconnects, so that reading for a disconnect is unnecessary meanwhile.
        is_answering: whether a response of the fast path is in progress.
        answered_at: time of the last such response, by the loop's clock.
        head_began_at: start of an incomplete head, by the same clock; 0 if there is none.
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
        """Handle an event; a complete plain request on an idle connection takes the fast path."""
        if isinstance(event, RawData) and self._is_between_requests():
            message = parse(event.data)
            if message is not None and self.is_quick(scope := self._scope_of(message)):
                await self._answer(scope, message.body)
                return
        await super().handle(event)
        if isinstance(event, RawData):
            self._note_head()

    def _note_head(self) -> None:
        """Record when an incomplete head began, for its time-out."""
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
            await self.send(sendable(answer.parts))
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
        """Throttle reads from clients after repeated 503s.

        Thousands of clients that retry at once would leave no time for admitted requests.
        """
        now = asyncio.get_running_loop().time()
        until = max(now, PlainH11Protocol._refused_until) + 1 / REFUSALS_A_SECOND
        until = min(until, now + LONGEST_PAUSE_SECONDS)
        PlainH11Protocol._refused_until = until
        # A shorter pause would cost more than it saves.
        if until - now > SHORTEST_PAUSE_SECONDS:
            await asyncio.sleep(until - now)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """Send an h11 event; the head is sent together with the first data, bodies uncopied."""
        if not isinstance(self.connection, h11.Connection):
            await super()._send_h11_event(event)
            return
        if isinstance(event, h11.Response | h11.InformationalResponse) and not event.reason:
            event = replace(event, reason=reason_of(event.status_code))
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
            await self.send(sendable([head, *(parts or ())]))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Do nothing: the parent would switch to HTTP/2 here."""

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version not in VERSIONS:
            # RFC 9110, section 15.6.6; HTTP/2 with prior knowledge lands here too, as
            # "PRI * HTTP/2.0".
            await self._refuse(505)
        elif not request.method.isupper():
            # RFC 9110, section 9.1: methods are case-sensitive. The parent would upper-case it, and
            # so bypass a proxy's rules for GET.
            await self._refuse(501)
        else:
            await super()._create_stream(request)

    async def _refuse(self, status_code: int) -> None:
        await self._send_error_response(status_code)
        await self.send(Closed())

    async def _send_error_response(self, status_code: int) -> None:
        # Requests with a stream or on the fast path are counted by the application.
        if self.stream is None and not self.is_answering:
            metrics.count_request(metrics.OTHER, metrics.OTHER, status_code, 0.0)
        await super()._send_error_response(status_code)


def _unused(*_: Any) -> Any:
    """Stand in for the parameters that hypercorn uses only for WSGI applications."""
    raise NotImplementedError


def install(is_quick: IsQuick, buffers: ResponseBuffers) -> None:
    """Make hypercorn use these classes for new connections of this process.

    Args:
        is_quick: returns whether a request takes the fast path.
        buffers: accounts for responses that clients have not received yet.
    """
    # hypercorn has no setting and no factory for them; it looks them up under these names.
    PlainH11Protocol.is_quick = staticmethod(is_quick)
    PlainTCPServer.buffers = buffers
    hypercorn.protocol.H11Protocol = PlainH11Protocol  # type: ignore[attr-defined]  # on purpose
    hypercorn.asyncio.run.TCPServer = PlainTCPServer  # type: ignore[attr-defined]  # on purpose
