"""HTTP/1.1 on hypercorn: restrictions that it cannot be configured for, and the direct path.

hypercorn runs every request in a task of its own beside one that keeps reading, cancels and
recreates a timer, and lets h11 validate both directions. That suits long requests, but makes up
three quarters of the cost of a short one. The direct path answers plain requests without it.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import h11
import hypercorn.asyncio.run
import hypercorn.protocol
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import H11SendableEvent

from catalog.concurrency.turns import Turn
from catalog.errors import CatalogError, Overloaded
from catalog.fastpath.connection import PlainTCPServer
from catalog.fastpath.continuing import Continuing
from catalog.fastpath.direct import DirectPath
from catalog.fastpath.incomplete_head import IncompleteHead
from catalog.fastpath.output import sendable
from catalog.fastpath.refusal_rate import RefusalRate
from catalog.fastpath.request_head import (
    EMPTY_LINES,
    OF_BODY,
    check_size,
    head_of,
    keeps_alive,
    to_catalog_error,
)
from catalog.fastpath.request_parser import parse
from catalog.fastpath.response import Response, reason_of
from catalog.fastpath.trailers import bound_trailers
from catalog.http.middleware.body_stream import MALFORMED
from catalog.http.request import BY_NAME, Header
from catalog.http.response_buffers import SHARED_BYTES, ResponseBuffers
from catalog.observability import metrics


class PlainH11Protocol(H11Protocol):
    """HTTP/1.1 protocol that never switches to HTTP/2, and answers plain requests itself.

    A proxy that forwards ``Upgrade: h2c`` and then relays bytes no longer sees the requests in
    them, so none of its rules apply. Ignoring the field is allowed (RFC 9110, section 7.8), and
    HTTP/2 without TLS has no other user here.

    Attributes:
        direct: answers hot requests. Their response is short and is completed even if the client
            disconnects, so that reading for a disconnect is unnecessary meanwhile.
        is_answering: whether a response of the direct path is in progress.
        answered_at: time of the last such response, by the loop's clock.
        has_failed: whether the connection is not parsed any further and ends after its response.
        head: the head that has begun to arrive.
        refusal_rate: of all connections.
    """

    direct: DirectPath
    refusal_rate = RefusalRate()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_answering = False
        self.answered_at = 0.0
        self.has_failed = False
        self._keeps_old_alive = self._is_last = self._is_unused = False
        self._status = 0
        self._head = b""
        self.head = IncompleteHead()

    async def handle(self, event: Event) -> None:
        """Handle an event; a complete plain request on an idle connection takes the direct path."""
        if not isinstance(event, RawData):
            await super().handle(event)
            return
        if self.has_failed:
            return
        if self._is_between_requests():
            message = parse(event.data)
            if message is not None:
                scope = self._scope(message.method, message.path, message.fields)
                scope["query_string"] = message.query
                scope[BY_NAME] = message.by_name
                if message.is_old:
                    scope["http_version"] = "1.0"
                found = self.direct.find(scope, message.body)
                if found is not None:
                    self._keeps_old_alive = message.is_old
                    await self._answer(self.direct.answer(found, message.body, self._send_whole))
                    return
        self._is_unused = False
        await super().handle(event)
        is_head = self.connection.their_state is h11.IDLE
        self.head.note(len(self.connection.trailing_data[0]) if is_head else 0)
        if self.head.exceeds_limit and not self.has_failed:
            metrics.count_rejection("heads")
            await self._refuse(Overloaded("Too many requests are incomplete."))

    def _is_between_requests(self) -> bool:
        if self._is_unused:
            return True
        connection = self.connection
        self._is_unused = (
            self.stream is None
            and connection.our_state is h11.IDLE
            and connection.their_state is h11.IDLE
            and connection.trailing_data == (b"", False)
        )
        return self._is_unused

    def _scope(self, method: bytes, path: bytes, fields: Sequence[Header]) -> Any:
        # What the direct path needs of an ASGI scope.
        return {
            "type": "http",
            "http_version": "1.1",
            "method": method.decode("ascii"),
            "scheme": "https" if self.ssl else "http",
            "path": path.decode("ascii"),
            "query_string": b"",
            "root_path": self.config.root_path,
            "headers": fields,
            "client": self.client,
        }

    async def _answer(self, answering: Awaitable[None]) -> None:
        """Await the answer to a request, which is sent by ``_send_whole``."""
        self.keep_alive_requests += 1
        is_used_up = self.keep_alive_requests >= self.config.keep_alive_max_requests
        self._is_last = is_used_up or self.has_failed
        self._status = 0
        self.is_answering = True
        try:
            await answering
        except Exception:  # noqa: BLE001 (the parent does the same)
            await self.config.log.exception("Error in ASGI Framework")
            await self._send_error_response(500)
            self._is_last = True
        finally:
            self.is_answering = False
            self.answered_at = asyncio.get_running_loop().time()
        if self._is_last or self.context.terminated.is_set():
            await self.send(Closed())
        elif self._status == HTTPStatus.SERVICE_UNAVAILABLE:
            await self.refusal_rate.pause()

    async def _send_whole(self, response: Response) -> None:
        """Send a response with one write."""
        self._status = response.reply.status
        if (b"connection", b"close") in response.own:
            self._is_last = True
        head = response.head(is_last=self._is_last, keeps_old_alive=self._keeps_old_alive)
        await self.send(sendable([head, response.body]))

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """Send an h11 event; the head is sent together with the first data, bodies uncopied."""
        if not isinstance(self.connection, h11.Connection):
            await super()._send_h11_event(event)
            return
        if isinstance(event, h11.Response | h11.InformationalResponse):
            event = replace(event, reason=reason_of(event.status_code))
        if isinstance(event, h11.Response) and (self.has_failed or self._keeps_old_alive):
            choice = b"close" if self.has_failed else b"keep-alive"
            if not any(name == b"connection" for name, _ in event.headers):
                headers: Any = [*event.headers, (b"connection", choice)]
                event = replace(event, headers=headers)
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
            await self.send(sendable([head, *(parts or ())], joined_below=SHARED_BYTES))

    async def send_continue(self) -> None:
        """Send 100 if the client waits for it."""
        if self.connection.they_are_waiting_for_100_continue:
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    async def _handle_events(self) -> None:
        """Handle what has arrived.

        Unlike the parent, never switch to HTTP/2, answer errors as problems, and leave 100 to the
        request (``Continuing``).

        Yields to other tasks inside of a body: tiny chunks take 20 us each, and neither reading nor
        parsing suspends while there is data. Not elsewhere: a response that is sent before the end
        of its request is parsed ends the connection.
        """
        turn = Turn()
        connection: Any = self.connection
        while True:
            try:
                if connection.their_state is h11.IDLE:
                    unparsed = self._without_empty_lines()
                    if unparsed == b"\r":
                        break
                    check_size(unparsed)
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                await self._fail(error)
                break
            except CatalogError as refusal:
                await self._refuse(refusal)
                break
            if isinstance(event, h11.Request):
                bound_trailers(connection)
                await self.send(Updated(idle=False))
                await self._create_stream(event)
                turn = Turn()
            elif event is h11.PAUSED:
                await self.can_read.clear()
                await self.can_read.wait()
            elif self.stream is None or event is h11.NEED_DATA:
                break
            elif self.stream.closed and not connection._cstate.keep_alive:
                # The response is sent, and the connection about to be closed.
                self.has_failed = True
                break
            elif isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
                await turn.yield_if_over()
            elif isinstance(event, h11.EndOfMessage):
                await self.stream.handle(EndBody(stream_id=STREAM_ID))
            else:
                break

    def _without_empty_lines(self) -> bytes:
        """Drop empty lines before a request, and return what has arrived of it.

        Some clients send one behind a body (RFC 9112, section 2.2).
        """
        connection: Any = self.connection
        unparsed: bytes = connection.trailing_data[0]
        begun = EMPTY_LINES.sub(b"", unparsed)
        if count := len(unparsed) - len(begun):
            connection._receive_buffer.maybe_extract_at_most(count)
        return begun

    def _drop_unparsed(self) -> None:
        """Free what has arrived and is not parsed any more, while the connection lingers."""
        connection: Any = self.connection
        connection._receive_buffer.maybe_extract_at_most(len(connection.trailing_data[0]))
        self.head.note(0)

    async def _create_stream(self, request: h11.Request) -> None:
        """Begin a request; ``Upgrade`` is ignored."""
        try:
            head = head_of(request)
        except CatalogError as error:
            await self._refuse(error, request)
            return
        connection: Any = self.connection
        if request.http_version == b"1.0" and keeps_alive(request):
            # h11 leaves it out; RFC 9112, appendix C.2.2.
            connection._cstate.keep_alive = self._keeps_old_alive = True
        else:
            self._keeps_old_alive = False
        app: Any = self.app
        if connection.they_are_waiting_for_100_continue:
            app = Continuing(app, self.send_continue)
        self.stream = HTTPStream(
            app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        version = "1.0" if request.http_version == b"1.0" else "1.1"
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=head.headers,
                http_version=version,
                method=head.method.decode("ascii"),
                raw_path=head.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _fail(self, error: h11.RemoteProtocolError) -> None:
        """Answer input that is no HTTP/1.x, and end the connection."""
        if self.stream is not None and self.connection.our_state is h11.SEND_RESPONSE:
            # The request is being handled; if it reads its body, it reports the fault itself.
            self.has_failed = True
            stream: Any = self.stream
            body = {"type": "http.request", "body": b"", "more_body": False, MALFORMED: True}
            await stream.app_put(body)
        elif self.connection.our_state is h11.IDLE:
            await self._refuse(to_catalog_error(error))
        else:
            await self.send(Closed())

    async def _refuse(self, error: CatalogError, request: h11.Request | None = None) -> None:
        """Let the application render an error of the head, and end the connection."""
        self.has_failed = True
        self._drop_unparsed()
        method, path, fields = b"", b"", []
        if request is not None:
            method, path = request.method, request.target.partition(b"?")[0]
            fields = [field for field in request.headers if field[0] not in OF_BODY]
        self._keeps_old_alive = False
        scope = self._scope(method, path, fields)
        await self._answer(self.direct.refuse(scope, error, self._send_whole))

    async def _send_error_response(self, status_code: int) -> None:
        # Requests with a stream or on the direct path are counted by the application.
        if self.stream is None and not self.is_answering:
            metrics.count_request(metrics.OTHER, metrics.OTHER, status_code, 0.0)
        await super()._send_error_response(status_code)


def install(direct: DirectPath, buffers: ResponseBuffers) -> None:
    """Make hypercorn use these classes for new connections of this process.

    Args:
        direct: answers hot requests.
        buffers: accounts for responses that clients have not received yet.
    """
    # hypercorn has no setting and no factory for them; it looks them up under these names.
    PlainH11Protocol.direct = direct
    PlainTCPServer.buffers = buffers
    hypercorn.protocol.H11Protocol = PlainH11Protocol  # type: ignore[attr-defined]  # on purpose
    hypercorn.asyncio.run.TCPServer = PlainTCPServer  # type: ignore[attr-defined]  # on purpose
