"""Replies: what a view returns, independent of the framework."""

from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus

from hypercorn.typing import ASGISendCallable
from pydantic import BaseModel

from catalog.http.context import app_state
from catalog.http.replies.negotiation import JSON
from catalog.http.request import current_request
from catalog.http.response_buffers import LARGE_BYTES

_EMPTY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


class Reply:
    """A response.

    Args:
        body: the content; an iterator if it is streamed.
        status: the status code.
        headers: the headers, except the content's type and length.
        media_type: the content's type; None if there is no content.

    Attributes:
        heads: parts of the response's head as bytes, which the direct path caches.
    """

    # Neither a tuple nor a dataclass: quart-schema would take these for something to convert.
    __slots__ = ("_fields", "body", "headers", "heads", "media_type", "status")

    def __init__(
        self,
        body: bytes | AsyncIterator[bytes] = b"",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = JSON,
    ) -> None:
        self.body = body
        self.status = status
        self.headers = headers or {}
        self.media_type = media_type
        self.heads: dict[bool, bytes] = {}
        self._fields: list[tuple[bytes, bytes]] | None = None

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """The header fields of a whole response; encoded once, as a reply may be sent often."""
        if self._fields is None:
            fields = [(name.lower().encode(), text.encode()) for name, text in self.headers.items()]
            if self.status not in _EMPTY and isinstance(self.body, bytes):
                fields.append((b"content-length", b"%d" % len(self.body)))
            if self.media_type is not None:
                fields.append((b"content-type", self.media_type.encode()))
            self._fields = fields
        return self._fields


def json_reply(
    body: bytes | BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Reply:
    """Return a JSON response from a model, or from bytes that are JSON already.

    Raises:
        Overloaded: a large response to a read, while the bound on unsent bytes is reached.
    """
    if isinstance(body, BaseModel):
        body = body.model_dump_json().encode()
    reply = Reply(body, status=status, headers=headers)
    # Only reads are shed: a write is committed, and its client must get the response.
    return admitted(reply) if current_request().method == "GET" else reply


def admitted(reply: Reply) -> Reply:
    """Return a response to a read, unless it is large and too much is unsent.

    Raises:
        Overloaded: the response is large, and the bound on unsent bytes is reached.
    """
    if isinstance(reply.body, bytes) and len(reply.body) >= LARGE_BYTES:
        app_state().buffers.admit(len(reply.body))
    return reply


def no_content(headers: Mapping[str, str] | None = None) -> Reply:
    """Return an empty 204 response."""
    return Reply(status=HTTPStatus.NO_CONTENT, headers=headers, media_type=None)


async def send_reply(send: ASGISendCallable, reply: Reply) -> None:
    """Send a whole response over ASGI."""
    body = reply.body
    if not isinstance(body, bytes):
        raise TypeError("a streamed response cannot be sent whole")
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
