"""Idempotency keys: the ``Idempotency-Key`` of a request."""

import re
from collections.abc import Sequence

from catalog.errors import FieldError, InvalidRequest
from catalog.http.request import current_request

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
# A string of a structured field (RFC 9651, section 3.3.3).
_QUOTED_KEY = re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"')
_ESCAPED = re.compile(r'\\(["\\])')


def idempotency_key() -> str | None:
    """Return the request's ``Idempotency-Key``; None if there is none.

    A key in double quotes, as draft-ietf-httpapi-idempotency-key-header-07 writes it, is the text
    within them.

    Raises:
        InvalidRequest: several fields, or a key that is not 1 to 255 printable ASCII characters.
    """
    return key_among(current_request().header_values("idempotency-key"))


def key_among(values: Sequence[str]) -> str | None:
    """Return the key of a request's ``Idempotency-Key`` fields; raises as ``idempotency_key``."""
    if not values:
        return None
    key = values[0]
    if _QUOTED_KEY.fullmatch(key):
        key = _ESCAPED.sub(r"\1", key[1:-1])
    if len(values) > 1 or _KEY.fullmatch(key) is None:
        rule = "must be 1 to 255 printable ASCII characters"
        raise InvalidRequest(errors=[FieldError("header", "Idempotency-Key", rule)])
    return key
