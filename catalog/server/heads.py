"""Heads of HTTP/1.1 messages (RFC 9112), as long as they are plain.

What a general parser does for a head costs more than reading a page that is shared. Only what has
one reading is taken here: a GET without a body, in bytes that need no decoding, complete in one
piece and with nothing behind it. Everything else is the general parser's, errors included.
"""

import asyncio
import re
from time import time
from typing import Any
from wsgiref.handlers import format_date_time

Header = tuple[bytes, bytes]

MAX_HEAD_BYTES = 8192

_HEAD = re.compile(
    rb"GET (/[\w\-./~!$&'()*+,;=:@]*)(?:\?([\w\-./~!$&'()*+,;=:@?]*))? HTTP/1\.1\r\n"
    rb"((?:[\w!#$&'*+\-.^`|~]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+)\r\n"
)

# What says that there is a body, or that this is not to be the whole conversation.
_NOT_PLAIN = {b"content-length", b"transfer-encoding", b"expect", b"upgrade"}


def parse(data: bytes) -> tuple[bytes, bytes, list[Header]] | None:
    """Path, query and fields of a plain request; None if it is not plain."""
    if len(data) > MAX_HEAD_BYTES or (head := _HEAD.fullmatch(data)) is None:
        return None
    path, query, lines = head.groups(b"")
    fields: list[Header] = []
    hosts = 0
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"host":
            hosts += 1
        elif name in _NOT_PLAIN or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        fields.append((name, value))
    # RFC 9112, section 3.2: it is an error without, or with two, and not ours to tell.
    return (path, query, fields) if hosts == 1 else None


class Answer:
    """Takes an answer from an ASGI application, to send it in one piece; for a plain request.

    Args:
        is_last: whether the connection closes behind it.
    """

    def __init__(self, *, is_last: bool) -> None:
        self.is_last = is_last
        self._parts: list[bytes] = []
        self._is_complete = False
        self._is_received = False
        self._end: asyncio.Event | None = None

    async def receive(self) -> Any:
        """What ASGI calls ``receive``: no body, and then nothing until the answer is complete."""
        if not self._is_received:
            self._is_received = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if not self._is_complete:
            self._end = self._end or asyncio.Event()
            await self._end.wait()
        return {"type": "http.disconnect"}

    async def take(self, message: Any) -> None:
        """What ASGI calls ``send``."""
        if message["type"] == "http.response.start":
            self._parts.append(self._head(message["status"], message["headers"]))
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._is_complete = True
                if self._end is not None:
                    self._end.set()

    @property
    def data(self) -> bytes:
        """Head and body.

        Raises:
            RuntimeError: the application has not finished it.
        """
        if not self._is_complete:
            raise RuntimeError("there is no answer, or only a part of one")
        return b"".join(self._parts)

    def _head(self, status: int, headers: list[Header]) -> bytes:
        lines = [b"HTTP/1.1 %d " % status, *(b"%b: %b" % header for header in headers)]
        if b"connection: close" in lines:
            self.is_last = True
        elif self.is_last:
            lines.append(b"connection: close")
        lines.append(b"date: " + _date())
        head = b"\r\n".join(lines)
        # A line break in a value would begin a header, or an answer, of somebody else's choice.
        if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
            raise ValueError("a header holds a line break")
        return head + b"\r\n\r\n"


_dated = (0, b"")


def _date() -> bytes:
    """The present second (RFC 9110, section 5.6.7)."""
    global _dated
    second = int(time())
    if _dated[0] != second:
        _dated = second, format_date_time(second).encode("ascii")
    return _dated[1]
