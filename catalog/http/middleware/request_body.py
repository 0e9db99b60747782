"""Request bodies: buffered up to a limit, or streamed as they arrive."""

import asyncio
from collections.abc import Collection, Mapping
from functools import partial

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)

from catalog.errors import (
    BodyTooLarge,
    CatalogError,
    MalformedRequest,
    Overloaded,
    RequestTimeout,
    UnsupportedMediaType,
)
from catalog.http.middleware.body_stream import BodyStream, refuse_malformed
from catalog.http.middleware.content_coding import decoded, decoded_body, is_gzip
from catalog.http.middleware.lingering_close import lingering
from catalog.http.replies.problems import problem_reply
from catalog.http.replies.reply import send_reply
from catalog.http.request import Fields, current_request
from catalog.observability.metrics import count_rejection

MAX_BODY_BYTES = 256 * 1024
"""Size of the largest body, part of the API's contract; nginx has the same limit.

A product of the largest size has 200 kB of JSON when every character is escaped. More than that is
sent as a bulk, which streams.
"""

BODY_SECONDS = 10.0
"""Time until a body must be complete; for a stream, until its next piece.

Within it, 256 KiB arrive at 210 kbit/s.
"""

MAX_WAITING = 1024
"""Incomplete bodies in one process; the oldest one gives way to the next."""

MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Bytes of incomplete bodies in one process: 128 of the largest."""

MAX_EXPECTED = 64
"""Requests in progress in one process whose clients wait for 100 before they send the body.

They count as requests in progress while the body arrives. Further ones get 100 at once.
"""

_WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}


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
    """ASGI middleware: buffers a body up to a limit, as that of the current request.

    The framework's own limit counts bytes that are not yet consumed, or only the announced length,
    depending on its release; this one counts bytes as they arrive. A request that announces its
    length in two ways is rejected, the root of request smuggling (RFC 9112, section 6.1).

    The number of incomplete bodies and their bytes are bounded, and the oldest one is evicted: an
    honest client needs a moment only, and one that sends a byte now and then would otherwise hold
    the places of all others.

    Bodies of any size are not buffered here: handlers read them as they arrive by ``pieces_of``.
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
        max_waiting: int = MAX_WAITING,
        streamed: Mapping[str, Collection[str]],
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max(MAX_WAITING_BYTES, 2 * max_bytes)
        # Oldest first.
        self._waiting: dict[_Waiting, None] = {}
        self._expected = 0
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
        request = current_request()
        length, chunked, media_type = _announced(request.fields)
        # In HTTP/2 a body may come without an announcement; nothing reads the one of a GET.
        if length is None and not chunked and scope["method"] in _WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        try:
            if length is not None and chunked:
                raise MalformedRequest("Content-Length and Transfer-Encoding exclude each other.")
            is_encoded = b"content-encoding" in request.fields and is_gzip(request.fields)
        except (MalformedRequest, UnsupportedMediaType) as error:
            await self._refuse(error, receive, send)
            return
        place = scope["path"].rstrip("/"), media_type
        if scope["method"] == "POST" and place in self._streamed:
            await self._hand_over(scope, receive, send, is_encoded=is_encoded)
            return
        if is_encoded:
            # Decoded when the view reads it, behind its guard: the slowest 256 KiB take 60 ms.
            request.decode = partial(decoded_body, max_bytes=self._max_bytes)
        is_too_large = length is not None and length > self._max_bytes
        if b"expect" in request.fields and not is_too_large and self._expected < MAX_EXPECTED:
            await self._let_ask(scope, receive, send)
            return
        try:
            if is_too_large:
                raise self._too_large()
            request.body = await self._read(receive)
        except (BodyTooLarge, RequestTimeout, Overloaded, MalformedRequest) as error:
            await self._refuse(error, receive, send)
        except _ClientGone:
            # A truncated body may look complete; it is discarded.
            return
        else:
            await self._app(scope, receive, send)

    async def _refuse(
        self, error: CatalogError, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        await send_reply(lingering(receive, send), problem_reply(error))

    async def _hand_over(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        *,
        is_encoded: bool,
    ) -> None:
        stream = BodyStream(receive, timeout=self._timeout)
        current_request().stream = decoded(stream) if is_encoded else stream
        await self._app(scope, stream.receive_rest, _parting(stream, send))

    async def _let_ask(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Let the view ask for the body, so that a request refused for its head needs no body."""
        stream = BodyStream(receive, timeout=self._timeout)

        async def ask() -> bytes:
            try:
                return await self._read(stream.receive)
            except _ClientGone:
                # Nothing reads the response.
                raise MalformedRequest("The body is incomplete.") from None

        current_request().ask = ask
        self._expected += 1
        try:
            await self._app(scope, stream.receive_rest, _parting(stream, send))
        finally:
            self._expected -= 1

    async def _read(self, receive: ASGIReceiveCallable) -> bytes:
        """Return the body.

        Raises:
            BodyTooLarge: the body is larger than the limit.
            MalformedRequest: the body is no valid HTTP.
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
                    refuse_malformed(message)
                    piece = message["body"]
                    waiting.size += len(piece)
                    self.waiting_bytes += len(piece)
                    if waiting.size > self._max_bytes:
                        raise self._too_large()
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

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"A body may have at most {self._max_bytes} bytes.")


def _parting(stream: BodyStream, send: ASGISendCallable) -> ASGISendCallable:
    """Return a ``send`` that ends the stream, with lingering close unless all of it is read."""
    parting = lingering(stream.receive, send)
    is_read = False

    async def send_answer(message: ASGISendEvent) -> None:
        nonlocal is_read
        if message["type"] == "http.response.start":
            is_read = stream.is_over
        await (send if is_read else parting)(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            stream.give_up()

    return send_answer


class _ClientGone(Exception):
    """The client disconnected in the middle of its request."""


def _announced(fields: Fields) -> tuple[int | None, bool, bytes]:
    """Return a body's length, whether it is chunked, and its media type in lower case."""
    length = None
    if lengths := fields.get(b"content-length"):
        # Any number this long is too large, and Python converts no more than 4,300 digits.
        length = int(lengths[-1][:20]) if lengths[-1].isdigit() else None
    types = fields.get(b"content-type")
    media_type = types[0].partition(b";")[0].strip().lower() if types else b""
    return length, b"transfer-encoding" in fields, media_type
