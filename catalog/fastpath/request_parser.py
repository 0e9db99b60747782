"""Parser of plain HTTP/1.x requests (RFC 9112), for the direct path.

A general parser's work on a head costs more than reading a shared page. Only unambiguous requests
are parsed here: with a Content-Length or without a body, in bytes that need no decoding, complete
in one read and with nothing after it. Everything else is left to the general
parser, including errors.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from catalog.fastpath.request_head import HOST, MAX_FIELDS
from catalog.http.request import Fields, Header

MAX_HEAD_BYTES = 8192

_LINE = re.compile(
    rb"(GET|POST|PATCH|DELETE) "
    rb"(/[\w\-./~!$&'()*+,;=:@]*)(?:\?([\w\-./~!$&'()*+,;=:@?]*))? HTTP/1\.([01])"
)

_FIELD_LINES = re.compile(rb"(?:[\w!#$&'*+\-.^`|~]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+")

_LENGTH = re.compile(rb"[0-9]{1,9}")

_KNOWN_HOSTS = 64
# To match takes a quarter of a microsecond, and a service has few names.
_as_host = lru_cache(_KNOWN_HOSTS)(HOST.fullmatch)

# Fields that mean a body of unknown length, or an exchange of more than a request and a response.
_NOT_PLAIN = {b"transfer-encoding", b"expect", b"upgrade"}

_KNOWN = 512
_MAX_KNOWN_BYTES = 1024
"""Cached heads, and the length of their fields: a client sends the same ones each time."""


class _Fields(NamedTuple):
    """Header fields of a plain request.

    Attributes:
        fields: the fields in their order, with names in lower case.
        by_name: their values by name.
        length: value of ``Content-Length``; 0 without it.
        keeps_alive: whether ``Connection: keep-alive`` is among them.
    """

    fields: Sequence[Header]
    by_name: Fields
    length: int
    keeps_alive: bool


class Message(NamedTuple):
    """Plain request as received.

    Attributes:
        fields: its header fields in their order, with names in lower case.
        by_name: their values by name.
        is_old: whether it is an HTTP/1.0 request, whose client keeps the connection alive.
    """

    method: bytes
    path: bytes
    query: bytes
    fields: Sequence[Header]
    by_name: Fields
    body: bytes
    is_old: bool


def parse(data: bytes) -> Message | None:
    """Parse a plain request; return None if it is not plain."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
    begin = data.find(b"\r\n", 0, end) + 2
    line = _LINE.fullmatch(data, 0, begin - 2)
    if line is None:
        return None
    lines = data[begin : end - 2]
    known = _known_fields if _may_be_known(lines) else _parsed_fields
    found = known(lines)
    if found is None or len(data) - end != found.length:
        return None
    method, path, query, minor = line.groups(b"")
    is_old = minor == b"0"
    if is_old and not found.keeps_alive:
        return None
    return Message(method, path, query, found.fields, found.by_name, data[end:], is_old)


def _may_be_known(lines: bytes) -> bool:
    if len(lines) > _MAX_KNOWN_BYTES:
        return False
    # Read access to the memory must not yield tokens, so fields that may have one are not cached.
    lowered = lines.lower()
    return b"authorization" not in lowered and b"cookie" not in lowered


def _parsed_fields(lines: bytes) -> _Fields | None:
    if _FIELD_LINES.fullmatch(lines) is None:
        return None
    fields: list[Header] = []
    by_name: dict[bytes, list[bytes]] = {}
    length: bytes | None = None
    keeps_alive = False
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"content-length":
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
        by_name.setdefault(name, []).append(value)
    # RFC 9112, section 3.2: no Host, two or an invalid one is an error, for the general parser.
    hosts = by_name.get(b"host", ())
    if len(hosts) != 1 or _as_host(hosts[0]) is None or len(fields) > MAX_FIELDS:
        return None
    return _Fields(fields, by_name, int(length or 0), keeps_alive)


_known_fields = lru_cache(_KNOWN)(_parsed_fields)
