"""Buffer of a whole response, which is sent with one write."""

import asyncio
from functools import cache
from http import HTTPStatus
from time import time
from typing import Any
from wsgiref.handlers import format_date_time

Header = tuple[bytes, bytes]


class ResponseBuffer:
    """Buffer of an ASGI application's response to a plain request, to send it in one piece.

    Args:
        body: body of the request.
        is_last: whether the connection closes after the response.
        keeps_old_alive: whether the client is one of HTTP/1.0, and must be told so.

    Attributes:
        status: status code; 0 before the response begins.
    """

    def __init__(self, body: bytes = b"", *, is_last: bool, keeps_old_alive: bool = False) -> None:
        self.is_last = is_last
        self._keeps_old_alive = keeps_old_alive
        self.status = 0
        self._body = body
        self._head = b""
        self._content: list[bytes] = []
        self._is_complete = False
        self._is_received = False
        self._end: asyncio.Event | None = None

    async def receive(self) -> Any:
        """Act as ASGI's ``receive``: the body, then a disconnect after the complete response."""
        if not self._is_received:
            self._is_received = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        if not self._is_complete:
            self._end = self._end or asyncio.Event()
            await self._end.wait()
        return {"type": "http.disconnect"}

    async def take(self, message: Any) -> None:
        """Act as ASGI's ``send``."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._head = self._head_of(self.status, message["headers"])
        elif message["type"] == "http.response.body":
            self._content.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._is_complete = True
                if self._end is not None:
                    self._end.set()

    @property
    def parts(self) -> list[bytes]:
        """Head and body of the response.

        Raises:
            RuntimeError: the response is incomplete.
        """
        if not self._is_complete:
            raise RuntimeError("the response is incomplete")
        return [self._head, *self._content]

    def _head_of(self, status: int, headers: list[Header]) -> bytes:
        lines = [b"HTTP/1.1 %d %b" % (status, reason_of(status))]
        lines += [b"%b: %b" % header for header in headers]
        if b"connection: close" in lines:
            self.is_last = True
        elif self.is_last:
            lines.append(b"connection: close")
        elif self._keeps_old_alive:
            lines.append(b"connection: keep-alive")
        lines.append(b"date: " + _date())
        head = b"\r\n".join(lines)
        # A line break in a value would allow header injection or response splitting.
        if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
            raise ValueError("a header contains a line break")
        return head + b"\r\n\r\n"


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
