"""Request bodies: bounded while they are read, and JSON read strictly (RFC 8259, RFC 7493)."""

import asyncio
import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

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

MAX_DEPTH = 32
"""Levels of arrays and objects inside one another."""

# A string, closed or running to the end of the text, is one token whatever is in it: looked at
# from each of its quotes, a hostile one would take quadratic time.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)|[\[{\]}]', re.DOTALL)

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


def parse_json(body: bytes) -> Any:
    """Read JSON that means the same to every parser (RFC 7493, section 2).

    Raises:
        MalformedRequest: not UTF-8, a byte order mark, not JSON, a name twice in one object, a
            number that is no finite double, half a character, or nesting deeper than
            ``MAX_DEPTH``.
    """
    try:
        text = body.decode("utf-8")
        if _nests_too_deep(text):
            raise MalformedRequest(f"The body nests deeper than {MAX_DEPTH} levels.")
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError:
        raise MalformedRequest("The body is not UTF-8.") from None
    except ValueError as error:
        # Covers integers of more digits than Python converts, whose text is about Python.
        if isinstance(error, json.JSONDecodeError):
            # Where, but not why: the parser's words differ from release to release.
            place = f"line {error.lineno}, column {error.colno}"
            raise MalformedRequest(f"The body is not JSON, from {place} on.") from None
        raise MalformedRequest("The body holds a number that is too long.") from None
    # Only an escape can smuggle half a character past the decoder.
    if "\\u" in text and not _is_unicode(value):
        raise MalformedRequest("The body holds a lone surrogate, which is no character.")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedRequest("The body names the same field twice in one object.")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedRequest(f"{name} is not JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedRequest("The body holds a number beyond the range of a double.")
    return number


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _nests_too_deep(text: str) -> bool:
    """Whether brackets outside strings open more than ``MAX_DEPTH`` levels, JSON or not.

    Looked at before parsing, because Python's releases differ in how deep their parser goes and
    in how it says that it went too deep.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif first in "]}":
            depth -= 1
    return False
