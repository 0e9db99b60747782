"""Heads of HTTP/1.1 messages (RFC 9112), as long as they are plain.

What a general parser does for a head costs more than reading a page that is shared. Only what has
one reading is taken here: a GET without a body or a POST with one of a told length, in bytes that
need no decoding, complete in one piece and with nothing behind it. Everything else is the general
parser's, errors included.
"""

import asyncio
import re
from time import time
from typing import Any, NamedTuple
from wsgiref.handlers import format_date_time

Header = tuple[bytes, bytes]

MAX_HEAD_BYTES = 8192

_HEAD = re.compile(
    rb"(GET|POST) (/[\w\-./~!$&'()*+,;=:@]*)(?:\?([\w\-./~!$&'()*+,;=:@?]*))? HTTP/1\.1\r\n"
    rb"((?:[\w!#$&'*+\-.^`|~]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+)\r\n"
)

_LENGTH = re.compile(rb"[0-9]{1,9}")

# What says that the body's length is not told, or that this is not to be the whole conversation.
_NOT_PLAIN = {b"transfer-encoding", b"expect", b"upgrade"}


class Message(NamedTuple):
    """A plain request as it came."""

    method: bytes
    path: bytes
    query: bytes
    fields: list[Header]
    body: bytes


def parse(data: bytes) -> Message | None:
    """A plain request; None if it is not plain."""
    head = _HEAD.match(data)
    if head is None or head.end() > MAX_HEAD_BYTES:
        return None
    method, path, query, lines = head.groups(b"")
    body = data[head.end() :]
    fields: list[Header] = []
    hosts = 0
    length: bytes | None = None
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            # Twice, even with the same value, is not ours to judge.
            if length is not None or _LENGTH.fullmatch(value) is None:
                return None
            length = value
        elif name in _NOT_PLAIN or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        fields.append((name, value))
    # RFC 9112, section 3.2: it is an error without, or with two, and not ours to tell.
    if hosts != 1:
        return None
    if method == b"GET":
        is_whole = length is None and not body
    else:
        is_whole = length is not None and int(length) == len(body)
    return Message(method, path, query, fields, body) if is_whole else None


class ResponseBuffer:
    """Takes an answer from an ASGI application, to send it in one piece; for a plain request.

    Args:
        body: the request's.
        is_last: whether the connection closes behind it.

    Attributes:
        status: its status; 0 before it begins.
    """

    def __init__(self, body: bytes = b"", *, is_last: bool) -> None:
        self.is_last = is_last
        self.status = 0
        self._body = body
        self._head = b""
        self._content: list[bytes] = []
        self._is_complete = False
        self._is_received = False
        self._end: asyncio.Event | None = None

    async def receive(self) -> Any:
        """What ASGI calls ``receive``: the body, and then nothing until the answer is complete."""
        if not self._is_received:
            self._is_received = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        if not self._is_complete:
            self._end = self._end or asyncio.Event()
            await self._end.wait()
        return {"type": "http.disconnect"}

    async def take(self, message: Any) -> None:
        """What ASGI calls ``send``."""
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
        """Head and body.

        Raises:
            RuntimeError: the application has not finished it.
        """
        if not self._is_complete:
            raise RuntimeError("there is no answer, or only a part of one")
        return [self._head, *self._content]

    def _head_of(self, status: int, headers: list[Header]) -> bytes:
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
