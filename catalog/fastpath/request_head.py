"""Checks of heads that the general parser has read: sizes, versions, methods and targets.

The fast parser takes none that would be refused here. nginx in front has the same bounds, and
refuses the same requests with the same problems.
"""

import re
from http import HTTPStatus
from typing import NamedTuple

import h11

from catalog.errors import (
    CatalogError,
    HeadersTooLarge,
    MalformedRequest,
    MethodNotImplemented,
    UriTooLong,
    VersionNotSupported,
)
from catalog.http.request import Header

MAX_LINE_BYTES = 8192
"""Longest request line, and longest line of a header field; nginx keeps a line in one buffer."""

MAX_FIELDS_BYTES = 32 * 1024
"""Size of all header fields; nginx has buffers for twice as much, as lines do not fill them."""

MAX_FIELDS = 1000
"""Number of header fields: the general parser takes 20 ms for 64 KiB of the shortest ones."""

MAX_HEAD_BYTES = 64 * 1024
"""Size of a head as it arrives, with the blanks around its values; nginx has buffers for as much.
The general parser looks at it only while a head is incomplete, so it is checked for complete ones,
too: the outcome must not depend on how the bytes are split."""

OF_BODY = {b"content-length", b"transfer-encoding", b"expect"}
"""Fields that announce a body."""

_AUTHORITY = rb"(?:[\w\-.~!$&'()*+,;=%]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"

HOST = re.compile(_AUTHORITY)
"""Valid values of ``Host`` (RFC 9110, section 7.2); a URI of http has no empty host (4.2.1)."""

# RFC 9112, section 3.2: origin-form, or absolute-form with an authority but no user information.
_TARGET = re.compile(
    rb"(?:[A-Za-z][A-Za-z0-9+.\-]*://(?P<authority>" + _AUTHORITY + rb")(?=[/?#]|$))?"
    rb"(?P<rest>/?.*)",
    re.DOTALL,
)

# In a path: what is no percent-encoded byte, or NUL, which no name on any system has.
_BROKEN = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00")

EMPTY_LINES = re.compile(rb"\A(?:\r\n)++")

_BLANK_LINE = re.compile(rb"\n\r?\n")


class RequestHead(NamedTuple):
    """Head of a request, with its target in origin-form."""

    method: bytes
    target: bytes
    headers: list[Header]


def head_of(request: h11.Request) -> RequestHead:
    """Check a head; ``Host`` is the authority of a target in absolute-form.

    Raises:
        UriTooLong: the request line is too long.
        HeadersTooLarge: a header field is too long, or all of them together are.
        VersionNotSupported: the version is not 1.x (RFC 9110, section 15.6.6). HTTP/2 with prior
            knowledge lands here too, as ``PRI * HTTP/2.0``.
        MethodNotImplemented: the method is not in upper case. Methods are case-sensitive
            (RFC 9110, section 9.1); taken for another one, it would bypass a proxy's rules.
        MalformedRequest: the target is neither a path nor an absolute URI, or its path has a broken
            percent-encoding; or ``Host`` is not valid, even if it is ignored.
    """
    if len(request.method) + len(request.target) + len(" HTTP/1.1\r\n ") > MAX_LINE_BYTES:
        raise UriTooLong
    headers = list(request.headers)
    sizes = [len(name) + len(value) + len(": \r\n") for name, value in headers]
    if max(sizes, default=0) > MAX_LINE_BYTES or sum(sizes) > MAX_FIELDS_BYTES:
        raise HeadersTooLarge
    if not request.http_version.startswith(b"1."):
        raise VersionNotSupported
    if not request.method.isupper():
        raise MethodNotImplemented
    found = _TARGET.fullmatch(request.target)
    if found is None:
        raise MalformedRequest
    if any(name == b"host" and not HOST.fullmatch(value) for name, value in headers):
        raise MalformedRequest
    authority, target = found["authority"], found["rest"]
    if authority is not None:
        # RFC 9112, section 3.2.2: the field Host is ignored, and an absent path is the root.
        headers = [field for field in headers if field[0] != b"host"]
        headers.append((b"host", authority))
        target = target if target.startswith(b"/") else b"/" + target
    if not target.startswith(b"/") or _BROKEN.search(target.partition(b"?")[0]):
        raise MalformedRequest
    return RequestHead(request.method, target, headers)


def check_size(unparsed: bytes) -> None:
    """Check a head before it is parsed, as far as it has arrived.

    Args:
        unparsed: the head, and what may follow it.

    Raises:
        UriTooLong: the request line is too long.
        HeadersTooLarge: the head is too large, or has more than ``MAX_FIELDS`` fields.
    """
    if len(unparsed) <= MAX_HEAD_BYTES and unparsed.count(b"\n") <= MAX_FIELDS:
        return
    blank = _BLANK_LINE.search(unparsed)
    if (blank.end() if blank else len(unparsed)) > MAX_HEAD_BYTES:
        raise HeadersTooLarge if b"\n" in unparsed[:MAX_LINE_BYTES] else UriTooLong
    # Besides the fields, the request line ends a line.
    if unparsed.count(b"\n", 0, blank.start() + 1 if blank else None) > MAX_FIELDS + 1:
        raise HeadersTooLarge


def keeps_alive(request: h11.Request) -> bool:
    """Return whether a request of HTTP/1.0 asks to keep the connection (RFC 9112, C.2.2).

    Not with ``Transfer-Encoding``, because a proxy may have framed its body differently
    (section 6.1).
    """
    if any(name == b"transfer-encoding" for name, _ in request.headers):
        return False
    values = [value.lower() for name, value in request.headers if name == b"connection"]
    options = {option.strip() for value in values for option in value.split(b",")}
    return b"keep-alive" in options and b"close" not in options


def to_catalog_error(error: h11.RemoteProtocolError) -> CatalogError:
    """Translate the general parser's error for a head into the service's own."""
    if error.error_status_hint == HTTPStatus.NOT_IMPLEMENTED:
        return MethodNotImplemented()
    return MalformedRequest()
