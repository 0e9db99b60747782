"""Parser of plain HTTP/1.x requests (RFC 9112), for the fast path.

A general parser's work on a head costs more than reading a shared page. Only unambiguous requests
are parsed here: with a Content-Length or without a body, in bytes that need no decoding, complete
in one read and with nothing after it. Everything else is left to the general
parser, including errors.
"""

import re
from typing import NamedTuple

Header = tuple[bytes, bytes]

MAX_HEAD_BYTES = 8192

_HEAD = re.compile(
    rb"(GET|POST|PATCH|DELETE) "
    rb"(/[\w\-./~!$&'()*+,;=:@]*)(?:\?([\w\-./~!$&'()*+,;=:@?]*))? HTTP/1\.([01])\r\n"
    rb"((?:[\w!#$&'*+\-.^`|~]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+)\r\n"
)

_LENGTH = re.compile(rb"[0-9]{1,9}")

# Fields that mean a body of unknown length, or an exchange of more than a request and a response.
_NOT_PLAIN = {b"transfer-encoding", b"expect", b"upgrade"}


class Message(NamedTuple):
    """Plain request as received.

    Attributes:
        is_old: whether it is an HTTP/1.0 request, whose client keeps the connection alive.
    """

    method: bytes
    path: bytes
    query: bytes
    fields: list[Header]
    body: bytes
    is_old: bool


def parse(data: bytes) -> Message | None:
    """Parse a plain request; return None if it is not plain."""
    head = _HEAD.match(data)
    if head is None or head.end() > MAX_HEAD_BYTES:
        return None
    method, path, query, minor, lines = head.groups(b"")
    body = data[head.end() :]
    fields: list[Header] = []
    hosts = 0
    length: bytes | None = None
    keeps_alive = False
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            # A repeated field, even with the same value, is left to the general parser.
            if length is not None or _LENGTH.fullmatch(value) is None:
                return None
            length = value
        elif name == b"connection":
            if value.lower() != b"keep-alive":
                return None
            keeps_alive = True
        elif name in _NOT_PLAIN:
            return None
        fields.append((name, value))
    # RFC 9112, section 3.2: no Host or two is an error, which the general parser reports.
    is_old = minor == b"0"
    if hosts != 1 or (is_old and not keeps_alive):
        return None
    is_whole = int(length or 0) == len(body)
    return Message(method, path, query, fields, body, is_old) if is_whole else None
