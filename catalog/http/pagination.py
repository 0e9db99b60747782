"""Keyset pagination: signed cursors bound to one list, and ``Link`` headers (RFC 8288)."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable, Sequence
from hashlib import sha256
from urllib.parse import urlencode

import orjson

from catalog.errors import InvalidCursor

MAX_CURSOR_LENGTH = 4200
"""Characters; the longest cursor issued holds a name of 512 control characters, six bytes each."""

MAX_LINK_LENGTH = 2048
"""Characters of a URL in a header: proxies turn a response with more than 4 kB of headers into an
error, and a cursor holds user input."""

_MAC_BYTES = 16

SETTLED = "."
"""Beginning of a cursor whose page new rows do not affect, for caches that choose by the URL. It is
no character of the encoding, and no client escapes it."""


class Cursors:
    """Issuer and verifier of cursors: signed positions in one list.

    Args:
        secret: the service's secret; a separate key is derived from it, so that no cursor can
            pass for a token.
        *previous: earlier secrets; cursors signed with them stay valid, so that rotating a secret
            does not make clients restart their lists.
    """

    def __init__(self, secret: bytes, *previous: bytes) -> None:
        self._keys = [
            hmac.digest(each, b"catalog cursor 1", sha256) for each in (secret, *previous)
        ]

    def encode(
        self, position: list[int | float | str], *, bound_to: str, is_settled: bool = False
    ) -> str:
        """Encode a position as text for a URL.

        Args:
            position: the sort key of the last row sent, ending with its id.
            bound_to: the list, its sort and filters; a cursor is refused anywhere else.
            is_settled: whether new rows do not affect the page.
        """
        payload = orjson.dumps(position)
        text = _text_of(_mac(self._keys[0], payload, bound_to) + payload)
        return SETTLED + text if is_settled else text

    def decode(self, cursor: str, *, bound_to: str) -> list[int | float | str]:
        """Verify a cursor and return its position.

        Raises:
            InvalidCursor: it was not issued here, was changed, or belongs to another list.
        """
        cursor = cursor.removeprefix(SETTLED)
        try:
            sealed = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        except (NotBase64, UnicodeEncodeError):
            raise InvalidCursor from None
        # Only the canonical encoding is accepted: the decoder skips invalid characters.
        if _text_of(sealed) != cursor:
            raise InvalidCursor
        mac, payload = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
        macs = [_mac(key, payload, bound_to) for key in self._keys]
        if not any(hmac.compare_digest(mac, each) for each in macs):
            raise InvalidCursor
        position: list[int | float | str] = orjson.loads(payload)
        return position


class Place:
    """A request's position in a list: the row before its page, and the URL of the next page.

    Args:
        cursors: verifies the client's cursor and signs the next one.
        cursor: the client's cursor, if any.
        path: the path of the list.
        bound_to: the list, its sort and filters, as for ``Cursors.encode``.

    Attributes:
        after: the sort key of the row before the page, ending with its id; None at the beginning.

    Raises:
        InvalidCursor: as ``Cursors.decode``.
    """

    def __init__(self, cursors: Cursors, cursor: str | None, *, path: str, bound_to: str) -> None:
        self._cursors = cursors
        self._path = path
        self._bound_to = bound_to
        self.after = None if cursor is None else cursors.decode(cursor, bound_to=bound_to)

    def next_cursor(
        self, last: Sequence[int | float | str] | None, *, is_settled: bool = False
    ) -> str | None:
        """Return the cursor of the next page, or None if there is none.

        Args:
            last: the sort key of the page's last row, ending with its id; None on the last page.
            is_settled: as for ``Cursors.encode``.
        """
        if last is None:
            return None
        return self._cursors.encode(list(last), bound_to=self._bound_to, is_settled=is_settled)

    def next_url(self, cursor: str | None, given: Iterable[tuple[str, str]]) -> str | None:
        """Return the relative URL of the next page, or None if there is none.

        Args:
            cursor: the cursor of the next page.
            given: the request's parameters, repeated as sent except for the cursor.
        """
        if cursor is None:
            return None
        others = [each for each in given if each[0] != "cursor"]
        return f"{self._path}?{urlencode([('cursor', cursor), *others], safe=',')}"


def _mac(key: bytes, payload: bytes, bound_to: str) -> bytes:
    return hmac.digest(key, bound_to.encode() + b"\0" + payload, sha256)[:_MAC_BYTES]


def _text_of(sealed: bytes) -> str:
    return urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")


def link_headers(next_url: str | None) -> dict[str, str]:
    """Return a ``Link`` to the next page, if any; URLs beyond the limit are in the body only."""
    if next_url is None or len(next_url) > MAX_LINK_LENGTH:
        return {}
    return {"Link": f'<{next_url}>; rel="next"'}
