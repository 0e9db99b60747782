"""Request bodies: bounded while they are read, and JSON by ``strict_json.py`` alone."""

import asyncio
from typing import Any, TypeVar

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    Scope,
)
from pydantic import BaseModel, ValidationError
from quart import Request

from catalog.errors import (
    BodyTooLarge,
    InvalidRequest,
    MalformedRequest,
    RequestTimeout,
    UnsupportedMediaType,
)
from catalog.http.headers import refuse
from catalog.http.problems import field_errors
from catalog.http.strict_json import parse_json

M = TypeVar("M", bound=BaseModel)


class BoundedBodies:
    """ASGI middleware: reads a body up to a limit and hands it on whole.

    The framework's own limit counts what it has not yet handed on, or only what a header
    announced, depending on its release; this one counts bytes as they arrive. It also refuses
    what announces its length in two ways, the root of request smuggling (RFC 9112, section 6.1).

    Args:
        app: what to call with the body.
        max_bytes: the largest body.
        timeout: seconds within which it must have arrived.
    """

    def __init__(self, app: ASGIFramework, *, max_bytes: int, timeout: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout = timeout

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length, chunked = _framing(scope["headers"])
        if length is None and not chunked:
            await self._app(scope, receive, send)
            return
        if length is not None and chunked:
            error = MalformedRequest("Content-Length and Transfer-Encoding exclude each other.")
            await refuse(scope, send, error, close=True)
            return
        if length is not None and length > self._max_bytes:
            await self._refuse_large(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._read(receive)
        except TimeoutError:
            await refuse(scope, send, RequestTimeout(), close=True)
            return
        except _ClientGone:
            # What has arrived may look whole, but is not what the client meant to send.
            return
        if body is None:
            await self._refuse_large(scope, receive, send)
            return
        await self._app(scope, _replaying(body, receive), send)

    async def _read(self, receive: ASGIReceiveCallable) -> bytes | None:
        """The body, or None when it is larger than the limit.

        Raises:
            _ClientGone: it will never be whole.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _ClientGone
            size += len(message["body"])
            if size > self._max_bytes:
                return None
            parts.append(message["body"])
            if not message["more_body"]:
                return b"".join(parts)

    async def _refuse_large(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        error = BodyTooLarge(f"A body may have {self._max_bytes} bytes.")
        await refuse(scope, send, error, close=True, before_end=_linger(receive))


class _ClientGone(Exception):
    """The client hung up in the middle of its request."""


async def _linger(receive: ASGIReceiveCallable) -> None:
    """Read on for a moment after refusing.

    Closing while the client is still sending resets the connection, and the reset would overtake
    the refusal.
    """
    try:
        async with asyncio.timeout(1):
            for _ in range(256):
                message = await receive()
                if message["type"] != "http.request" or not message["more_body"]:
                    return
    except TimeoutError:
        return


def _framing(headers: Any) -> tuple[int | None, bool]:
    length, chunked = None, False
    for name, value in headers:
        if name == b"content-length":
            # Any number this long is too large, and Python converts no more than 4,300 digits.
            length = int(value[:20]) if value.isdigit() else None
        elif name == b"transfer-encoding":
            chunked = True
    return length, chunked


def _replaying(body: bytes, receive: ASGIReceiveCallable) -> ASGIReceiveCallable:
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
