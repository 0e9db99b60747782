"""Streaming responses of any length."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

from quart import Response, request

from catalog.errors import CatalogError
from catalog.http.context import request_id, running
from catalog.observability.logs import logger

_log = logger(__name__)


async def stream_response(
    pieces: AsyncGenerator[bytes, None], *, media_type: str, headers: Mapping[str, str]
) -> Response:
    """Stream a response in pieces; each is produced when the client has read the one before.

    There is no time-out for the whole response, but its client must keep reading. When producing a
    piece fails, the connection closes without the end of the response, so that a client cannot
    take a truncated response for a complete one.

    Raises:
        Overloaded: the bound on unsent bytes is reached.
        CatalogError: producing the first piece failed, while the status can still report it.
    """
    running().buffers.admit()
    body: AsyncIterator[bytes] | None = None
    if request.method == "GET":
        body = _sent(await anext(pieces, b""), pieces, request_id())
    response = Response(body, content_type=f"{media_type}; charset=utf-8")
    response.headers.update(headers)
    # nginx would buffer the response in files.
    response.headers["X-Accel-Buffering"] = "no"
    return response


async def _sent(
    first: bytes, pieces: AsyncGenerator[bytes, None], request: str
) -> AsyncIterator[bytes]:
    try:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece
    except CatalogError as error:
        cause = repr(error.__cause__ or error)
        _log.warning("stream_aborted", code=error.slug, cause=cause, request_id=request)
        # On a TimeoutError the framework omits the last event of the response, so that the server
        # closes the connection; for any other exception it would log a traceback.
        raise TimeoutError from error
