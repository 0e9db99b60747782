"""Response that is sent in one piece, and its head as bytes."""

from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from time import time
from typing import NamedTuple
from wsgiref.handlers import format_date_time

from catalog.http.middleware.response_headers import with_common_headers
from catalog.http.replies.reply import Reply
from catalog.http.request import Header

_CLOSE = b"connection: close\r\n"


class Response(NamedTuple):
    """A whole response to one request.

    Attributes:
        reply: its status, body, and header fields; it may be sent to many requests.
        own: the header fields of this response alone.
        is_private: whether the request has a token.
        has_body: whether the body is sent; a response to HEAD has none.
    """

    reply: Reply
    own: Sequence[Header]
    is_private: bool
    has_body: bool = True

    @property
    def fields(self) -> list[Header]:
        """All header fields."""
        return [*with_common_headers(self.reply.fields, is_private=self.is_private), *self.own]

    @property
    def body(self) -> bytes:
        """The bytes to send after the head.

        Raises:
            TypeError: the reply is a stream.
        """
        body = self.reply.body
        if not isinstance(body, bytes):
            raise TypeError("a streamed response cannot be sent whole")
        return body if self.has_body else b""

    def head(self, *, is_last: bool, keeps_old_alive: bool) -> bytes:
        """Return the head as HTTP/1.1 writes it.

        Args:
            is_last: whether the connection closes after the response.
            keeps_old_alive: whether the client is one of HTTP/1.0, and must be told that the
                connection stays open.

        Raises:
            ValueError: a header field has a line break.
        """
        heads = self.reply.heads
        head = heads.get(self.is_private)
        if head is None:
            # A page is sent often, so this part of its head is made once.
            head = heads[self.is_private] = _lines(
                b"HTTP/1.1 %d %b" % (self.reply.status, reason_of(self.reply.status)),
                with_common_headers(self.reply.fields, is_private=self.is_private),
            )
        own = _lines(b"", self.own)
        if is_last:
            own = own if _CLOSE in own else own + _CLOSE
        elif keeps_old_alive:
            own += b"connection: keep-alive\r\n"
        return b"%b%bdate: %b\r\n\r\n" % (head, own, _date())


def _lines(first: bytes, fields: Sequence[Header]) -> bytes:
    """Return lines of a head, each with its end.

    Raises:
        ValueError: a field has a line break, which would allow header injection or response
            splitting.
    """
    lines = [b"%b: %b\r\n" % field for field in fields]
    if first:
        lines.insert(0, first + b"\r\n")
    text = b"".join(lines)
    if text.count(b"\n") != len(lines) or text.count(b"\r") != len(lines):
        raise ValueError("a header contains a line break")
    return text


@cache
def reason_of(status: int) -> bytes:
    """Return a status code's reason phrase; empty if the code has none (RFC 9112, section 4).

    Clients should ignore it, but some load generators count responses without one as failed.
    """
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


_dated = (0, b"")


def _date() -> bytes:
    """Return the current second as an HTTP date (RFC 9110, section 5.6.7)."""
    global _dated
    second = int(time())
    if _dated[0] != second:
        _dated = second, format_date_time(second).encode("ascii")
    return _dated[1]
