"""Request bodies: buffered up to a limit, or streamed as they arrive.

JSON is parsed by ``strict_json.py`` alone.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, NoReturn, Self, TypeVar

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)
from pydantic import BaseModel, ValidationError
from quart import Request

from catalog.errors import (
    BodyTooLarge,
    InvalidRequest,
    MalformedRequest,
    Overloaded,
    RequestTimeout,
    UnsupportedMediaType,
)
from catalog.http.problems import field_errors
from catalog.http.response_headers import send_problem
from catalog.http.strict_json import parse_json
from catalog.observability.metrics import count_rejection

M = TypeVar("M", bound=BaseModel)


_LINGER_SECONDS = 1.0

_STREAM = "catalog.body"

WHOLE_BODY = "catalog.whole_body"
"""ASGI extension of a request whose body has arrived before the application is called."""

MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Bytes of incomplete bodies in one process: 128 of the largest by default."""


class _Waiting:
    """An incomplete body.

    Attributes:
        timeout: ends the read.
        size: bytes that have arrived.
        is_given_up: whether it was evicted to make room for others.
    """

    __slots__ = ("is_given_up", "size", "timeout")

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self.timeout = timeout
        self.size = 0
        self.is_given_up = False


class BoundedBodies:
    """ASGI middleware: buffers a body up to a limit and passes it on whole.

    The framework's own limit counts bytes that are not yet consumed, or only the announced length,
    depending on its release; this one counts bytes as they arrive. A request that announces its
    length in two ways is rejected, the root of request smuggling (RFC 9112, section 6.1).

    The number of incomplete bodies and their bytes are bounded, and the oldest one is evicted: an
    honest client needs a moment only, and one that sends a byte now and then would otherwise hold
    the places of all others.

    Bodies of any size are not buffered here: handlers read them as they arrive by ``body_stream``.
    The framework's own streaming buffers what the handler has not asked for yet.

    Args:
        app: the wrapped application.
        max_bytes: size of the largest body.
        timeout: seconds until a body must be complete; for a stream, until its next piece.
        max_waiting: bound on incomplete bodies.
        streamed: paths to which bodies of any size may be posted, and their media types.

    Attributes:
        waiting_bytes: bytes of incomplete bodies.
    """

    def __init__(
        self,
        app: ASGIFramework,
        *,
        max_bytes: int,
        timeout: float,
        max_waiting: int,
        streamed: Mapping[str, Collection[str]],
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max(MAX_WAITING_BYTES, 2 * max_bytes)
        # Oldest first.
        self._waiting: dict[_Waiting, None] = {}
        self.waiting_bytes = 0
        self._streamed = {
            (path, media_type.encode()) for path, types in streamed.items() for media_type in types
        }

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length, chunked, media_type = _announced(scope["headers"])
        if length is None and not chunked:
            await self._app(scope, receive, send)
            return
        if length is not None and chunked:
            error = MalformedRequest("Content-Length and Transfer-Encoding exclude each other.")
            await send_problem(scope, _parting(receive, send), error)
            return
        place = scope["path"].rstrip("/"), media_type
        if scope["method"] == "POST" and place in self._streamed:
            await self._hand_over(scope, receive, send)
            return
        if length is not None and length > self._max_bytes:
            await self._refuse_large(scope, receive, send)
            return
        try:
            if WHOLE_BODY in (scope.get("extensions") or ()):
                # The body has arrived, so no timer is needed.
                body = (await receive())["body"]  # type: ignore[typeddict-item]  # the first message
            else:
                body = await self._read(receive)
        except (RequestTimeout, Overloaded) as error:
            await send_problem(scope, _parting(receive, send), error)
            return
        except _ClientGone:
            # A truncated body may look complete; it is discarded.
            return
        if body is None:
            await self._refuse_large(scope, receive, send)
            return
        await self._app(scope, replaying(body, receive), send)

    async def _hand_over(
        self, scope: Any, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        stream = BodyStream(receive, timeout=self._timeout)
        parting = _parting(stream.receive, send)
        is_read = False

        async def send_answer(message: ASGISendEvent) -> None:
            nonlocal is_read
            if message["type"] == "http.response.start":
                is_read = stream.is_over
            await (send if is_read else parting)(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                stream.give_up()

        scope[_STREAM] = stream
        await self._app(scope, stream.receive_rest, send_answer)

    async def _read(self, receive: ASGIReceiveCallable) -> bytes | None:
        """Return the body, or None when it is larger than the limit.

        Raises:
            RequestTimeout: the body did not arrive in time.
            Overloaded: the body was evicted to make room for others.
            _ClientGone: the client disconnected before the body was complete.
        """
        parts: list[bytes] = []
        timeout = asyncio.timeout(self._timeout)
        waiting = _Waiting(timeout)
        try:
            async with timeout:
                self._make_room(1)
                self._waiting[waiting] = None
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise _ClientGone
                    piece = message["body"]
                    waiting.size += len(piece)
                    self.waiting_bytes += len(piece)
                    if waiting.size > self._max_bytes:
                        return None
                    parts.append(piece)
                    if not message["more_body"]:
                        return b"".join(parts)
                    self._make_room(0)
        except TimeoutError:
            if not waiting.is_given_up:
                raise RequestTimeout from None
            count_rejection("bodies")
            raise Overloaded("Too many request bodies are incomplete.") from None
        finally:
            self._waiting.pop(waiting, None)
            self.waiting_bytes -= waiting.size

    def _make_room(self, places: int) -> None:
        """Evict the oldest bodies while there are too many or they hold too many bytes."""
        while self._waiting and (
            len(self._waiting) + places > self._max_waiting
            or self.waiting_bytes > self._max_waiting_bytes
        ):
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            self.waiting_bytes -= oldest.size
            oldest.size = 0
            if not oldest.timeout.expired():
                oldest.is_given_up = True
                # A deadline in the past expires at once.
                oldest.timeout.reschedule(0)

    async def _refuse_large(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        error = BodyTooLarge(f"A body may have at most {self._max_bytes} bytes.")
        await send_problem(scope, _parting(receive, send), error)


class _ClientGone(Exception):
    """The client disconnected in the middle of its request."""


class BodyStream:
    """Iterator over the pieces of a body; each is received only on demand.

    When the client disconnects, a pending iteration blocks until the framework, which receives the
    disconnect through ``receive_rest``, cancels the handler.

    Args:
        receive: the server's channel.
        timeout: seconds until the next piece must have arrived.
    """

    def __init__(self, receive: ASGIReceiveCallable, *, timeout: float) -> None:
        self._receive = receive
        self._timeout = timeout
        self._over = asyncio.Event()
        self._is_gone = False
        self._is_handed_over = False

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to read."""
        return self._over.is_set()

    def __aiter__(self) -> Self:
        """Iterate over the pieces that are not read yet."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Raises:
            RequestTimeout: the piece did not arrive in time.
        """
        if self._is_gone:
            return await self._until_cancelled()
        if self.is_over:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(self._timeout):
                message = await self.receive()
        except TimeoutError:
            raise RequestTimeout("The next part of the body took too long to arrive.") from None
        if message["type"] == "http.request":
            return message["body"]
        return await self._until_cancelled()

    async def _until_cancelled(self) -> NoReturn:
        while True:
            await asyncio.Event().wait()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the server's next event of the body."""
        message = await self._receive()
        if message["type"] != "http.request":
            self.give_up()
        elif not message["more_body"]:
            self._over.set()
        return message

    def give_up(self) -> None:
        """End the stream: the client has disconnected, or has its response."""
        self._is_gone = True
        self._over.set()

    async def receive_rest(self) -> ASGIReceiveEvent:
        """Return to the framework an empty body, then the events that follow the real one."""
        if not self._is_handed_over:
            self._is_handed_over = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._over.wait()
        if self._is_gone:
            return {"type": "http.disconnect"}
        return await self._receive()


def _parting(receive: ASGIReceiveCallable, send: ASGISendCallable) -> ASGISendCallable:
    """Return a ``send`` with lingering close, for a client that may still be sending.

    Closing a connection with unread input resets it, and the reset would overtake the response. So
    the end of the response is delayed by up to ``_LINGER_SECONDS`` while the input is drained.
    Draining continues while the end is sent: the server reports the end through the queue that it
    puts the body in, and would wait forever for a place in a full queue.
    """

    async def send_parting(message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], (b"connection", b"close")]
            await send({**message, "headers": headers})
        elif message["type"] != "http.response.body" or message.get("more_body", False):
            await send(message)
        else:
            await send({**message, "more_body": True})
            reading = asyncio.create_task(_read_over(receive))
            try:
                await asyncio.wait([reading], timeout=_LINGER_SECONDS)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                reading.cancel()

    return send_parting


async def _read_over(receive: ASGIReceiveCallable) -> None:
    more = True
    while more:
        message = await receive()
        more = message["type"] == "http.request" and message["more_body"]


def _announced(headers: Any) -> tuple[int | None, bool, bytes]:
    """Return a body's length, whether it is chunked, and its media type in lower case."""
    length, chunked, media_type = None, False, b""
    for name, value in headers:
        if name == b"content-length":
            # Any number this long is too large, and Python converts no more than 4,300 digits.
            length = int(value[:20]) if value.isdigit() else None
        elif name == b"transfer-encoding":
            chunked = True
        elif name == b"content-type":
            media_type = value.partition(b";")[0].strip().lower()
    return length, chunked, media_type


def replaying(body: bytes, receive: ASGIReceiveCallable) -> ASGIReceiveCallable:
    """Return a ``receive`` that replays a received body, then continues with ``receive``."""
    handed_over = False

    async def replay() -> ASGIReceiveEvent:
        nonlocal handed_over
        if handed_over:
            return await receive()
        handed_over = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


class StrictRequest(Request):
    """A request with strict JSON: texts that parsers read differently are rejected."""

    async def get_json(
        self,
        force: bool = False,  # noqa: ARG002 (the framework's signature)
        silent: bool = False,  # noqa: ARG002 (the same)
        cache: bool = True,  # noqa: ARG002 (the same)
    ) -> Any:
        """Return the body's JSON value.

        Raises:
            UnsupportedMediaType: the body is not declared as ``application/json`` in UTF-8.
            MalformedRequest: the body is not JSON that every parser reads alike.
        """
        if self.mimetype != "application/json":
            raise UnsupportedMediaType("The body must be application/json.")
        if self.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
            raise UnsupportedMediaType("JSON must be in UTF-8.")
        body = await self.get_data()
        assert isinstance(body, bytes)  # noqa: S101 (not asked for as text; tells mypy)
        return parse_json(body)


async def body_stream(request: Request) -> AsyncIterator[bytes]:
    """Yield a body in pieces; of any size if its media type is streamed.

    Raises:
        RequestTimeout: the next piece did not arrive in time.
    """
    stream: BodyStream | None = request.scope.get(_STREAM)  # type: ignore[assignment]  # ours, not ASGI's
    if stream is None:
        body = await request.get_data()
        assert isinstance(body, bytes)  # noqa: S101 (not asked for as text; tells mypy)
        yield body
        return
    async for piece in stream:
        yield piece


async def json_if_any(request: Request, schema: type[M]) -> M:
    """Validate an optional body against a schema; an absent one is an empty object.

    Raises:
        MalformedRequest, UnsupportedMediaType: as ``StrictRequest.get_json``.
        InvalidRequest: a field is not valid.
    """
    data = await request.get_json() if await request.get_data() else {}
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise InvalidRequest(errors=field_errors(error)) from None
