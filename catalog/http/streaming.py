"""Answers that are sent while they are being made, however long they are."""

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
    """A response in pieces; each is made when the client has taken the one before.

    It has no time limit as a whole, but its client must go on taking it. When making a piece
    fails, the connection ends without the end of the response, so that nobody takes what has come
    for all there is.

    Raises:
        Overloaded: too much waits for clients already.
        CatalogError: making the first piece failed, which can still be told by a status.
    """
    running().buffers.admit()
    body: AsyncIterator[bytes] | None = None
    if request.method == "GET":
        body = _sent(await anext(pieces, b""), pieces, request_id())
    response = Response(body, content_type=f"{media_type}; charset=utf-8")
    response.headers.update(headers)
    # nginx would collect it in files.
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
        # The framework ends a response that took too long without its last event, and the server
        # then closes the connection; of any other exception it would log a traceback.
        raise TimeoutError from error
