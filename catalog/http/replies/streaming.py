"""Streaming responses of any length."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

from catalog.errors import CatalogError
from catalog.http.context import app_state
from catalog.http.replies.reply import Reply
from catalog.http.request import current_request
from catalog.observability.logs import logger

_log = logger(__name__)


async def stream_reply(
    pieces: AsyncGenerator[bytes, None], *, media_type: str, headers: Mapping[str, str]
) -> Reply:
    """Stream a response in pieces; each is produced when the client has read the one before.

    There is no time-out for the whole response, but its client must keep reading. When producing a
    piece fails, the connection closes without the end of the response, so that a client cannot
    take a truncated response for a complete one.

    Raises:
        Overloaded: the bound on unsent bytes is reached.
        CatalogError: producing the first piece failed, while the status can still report it.
    """
    app_state().buffers.admit()
    request = current_request()
    body: AsyncIterator[bytes] | bytes = b""
    if request.method == "GET":
        body = _sent(await anext(pieces, b""), pieces, request.request_id)
    # nginx would buffer the response in files.
    headers = {**headers, "X-Accel-Buffering": "no"}
    return Reply(body, headers=headers, media_type=f"{media_type}; charset=utf-8")


async def _sent(
    first: bytes, pieces: AsyncGenerator[bytes, None], request_id: str
) -> AsyncIterator[bytes]:
    try:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece
    except CatalogError as error:
        cause = repr(error.__cause__ or error)
        _log.warning("stream_aborted", code=error.slug, cause=cause, request_id=request_id)
        # On a TimeoutError the framework omits the last event of the response, so that the server
        # closes the connection; for any other exception it would log a traceback.
        raise TimeoutError from error
