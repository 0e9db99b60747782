"""Request bodies: bounded while they are read or handed on as they arrive.

JSON is read by ``strict_json.py`` alone.
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
"""Of bodies that have not arrived as a whole, in one process: 128 of the largest by default."""


class _Waiting:
    """A body that has not arrived as a whole.

    Attributes:
        timeout: ends the waiting for it.
        size: bytes that have arrived.
        is_given_up: whether it had to make room for others.
    """

    __slots__ = ("is_given_up", "size", "timeout")

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self.timeout = timeout
        self.size = 0
        self.is_given_up = False


class BoundedBodies:
    """ASGI middleware: reads a body up to a limit and hands it on whole.

    The framework's own limit counts what it has not yet handed on, or only what a header
    announced, depending on its release; this one counts bytes as they arrive. It also refuses
    what announces its length in two ways, the root of request smuggling (RFC 9112, section 6.1).

    Of bodies that have not arrived as a whole, this holds so many, and so many bytes, and gives up
    the one that it has waited for the longest: a client that means it needs a moment, and one that
    sends a byte now and then would keep the places of all others.

    What may be of any size is not read here at all, and handlers get it as it arrives by
    ``body_stream``. The framework's own way to do that holds what nobody has asked for yet.

    Args:
        app: what to call with the body.
        max_bytes: the largest body.
        timeout: seconds within which it must have arrived; of a stream, the next piece of it.
        max_waiting: bodies that have not arrived as a whole.
        streamed: paths to which bodies of any size may be posted, if they are of these media
            types.

    Attributes:
        waiting_bytes: of bodies that have not arrived as a whole.
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
        # In the order in which they began.
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
                # There is nothing to wait for, so no timer is needed.
                body = (await receive())["body"]  # type: ignore[typeddict-item]
            else:
                body = await self._read(receive)
        except (RequestTimeout, Overloaded) as error:
            await send_problem(scope, _parting(receive, send), error)
            return
        except _ClientGone:
            # What has arrived may look whole, but is not what the client meant to send.
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
        """The body, or None when it is larger than the limit.

        Raises:
            RequestTimeout: it did not arrive in time.
            Overloaded: it had to make room for others.
            _ClientGone: it will never be whole.
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
            raise Overloaded("Too many requests have not arrived as a whole.") from None
        finally:
            self._waiting.pop(waiting, None)
            self.waiting_bytes -= waiting.size

    def _make_room(self, places: int) -> None:
        """Give up the bodies that began first, if there are too many or they are too large."""
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
                # In the past, so at once.
                oldest.timeout.reschedule(0)

    async def _refuse_large(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        error = BodyTooLarge(f"A body may have {self._max_bytes} bytes.")
        await send_problem(scope, _parting(receive, send), error)


class _ClientGone(Exception):
    """The client hung up in the middle of its request."""


class BodyStream:
    """A body in pieces as they arrive; nothing is read before it is asked for.

    When the client hangs up, whoever waits for a piece waits until the framework, which is told
    of it by ``receive_rest``, cancels the handler.

    Args:
        receive: where it comes from.
        timeout: seconds to wait for a piece.
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
        """Iterate over what has not been read yet."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            RequestTimeout: it did not arrive in time.
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
        """The next event of the body, as the server has it."""
        message = await self._receive()
        if message["type"] != "http.request":
            self.give_up()
        elif not message["more_body"]:
            self._over.set()
        return message

    def give_up(self) -> None:
        """Let it be over: the client is gone, or has its answer."""
        self._is_gone = True
        self._over.set()

    async def receive_rest(self) -> ASGIReceiveEvent:
        """What the framework gets to see: an empty body, and what happens after the real one."""
        if not self._is_handed_over:
            self._is_handed_over = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._over.wait()
        if self._is_gone:
            return {"type": "http.disconnect"}
        return await self._receive()


def _parting(receive: ASGIReceiveCallable, send: ASGISendCallable) -> ASGISendCallable:
    """A way to answer while the client may still be sending; the connection ends with the answer.

    Closing then resets the connection, and the reset would overtake the answer. So the end of it
    waits a moment, in which what arrives is read. That goes on while the end is sent: the server
    tells of it through the queue that it puts the body in, and would wait for ever for its place
    in a full one.
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
    """A body's length, whether it comes in chunks, and its media type in lower case."""
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
    """A way to receive a body once more that was received already, and what follows it."""
    handed_over = False

    async def replay() -> ASGIReceiveEvent:
        nonlocal handed_over
        if handed_over:
            return await receive()
        handed_over = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


class StrictRequest(Request):
    """A request whose JSON is refused where parsers disagree on what it means."""

    async def get_json(
        self,
        force: bool = False,  # noqa: ARG002 (the framework's signature)
        silent: bool = False,  # noqa: ARG002 (the same)
        cache: bool = True,  # noqa: ARG002 (the same)
    ) -> Any:
        """The body as JSON.

        Raises:
            UnsupportedMediaType: it is not declared as ``application/json``.
            MalformedRequest: it is not the JSON that every parser reads alike.
        """
        if self.mimetype != "application/json":
            raise UnsupportedMediaType("The body must be application/json.")
        if self.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
            raise UnsupportedMediaType("JSON is UTF-8.")
        body = await self.get_data()
        assert isinstance(body, bytes)  # noqa: S101 (not asked for as text; tells mypy)
        return parse_json(body)


async def body_stream(request: Request) -> AsyncIterator[bytes]:
    """A body in pieces, of any size when it is of a media type that is streamed.

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
    """An optional body by its schema; an absent one is an empty object.

    Raises:
        MalformedRequest, UnsupportedMediaType: as ``StrictRequest.get_json``.
        InvalidRequest: a field is not valid.
    """
    data = await request.get_json() if await request.get_data() else {}
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise InvalidRequest(errors=field_errors(error)) from None
