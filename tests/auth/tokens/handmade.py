"""Tokens signed by hand, with any header and claims, so that each fault can be made alone."""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from uuid import uuid4

from tests.engines import SECRET

KEY = SECRET.get_secret_value().encode()
KID = urlsafe_b64encode(hmac.digest(KEY, b"catalog kid 1", sha256)[:16]).rstrip(b"=").decode()

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
KINDS = ("access", "refresh")


class _Absent:
    """Marker that removes a claim or a header."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


def encoded(part: bytes | dict[str, Any]) -> bytes:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(raw).rstrip(b"=")


def signed(
    header: bytes | dict[str, Any],
    payload: bytes | dict[str, Any],
    *,
    key: bytes = KEY,
    digest: Callable[..., Any] = sha256,
) -> str:
    """Sign a JWS by hand, for headers and payloads that no library would write."""
    signing_input = encoded(header) + b"." + encoded(payload)
    signature = hmac.digest(key, signing_input, digest)
    return (signing_input + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode()


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**base, **changes}.items() if value is not ABSENT}


def header_of(kind: str, **changes: Any) -> dict[str, Any]:
    """Return a valid header with changes."""
    typ = {"access": "at+jwt", "refresh": "rt+jwt"}[kind]
    return changed({"alg": "HS256", "typ": typ, "kid": KID}, changes)


def claims_of(kind: str, **changes: Any) -> dict[str, Any]:
    """Return valid claims with changes; times are in seconds since the epoch."""
    now = int(time.time())
    base = {
        "iss": "catalog",
        "aud": "catalog",
        "sub": "1",
        "sid": "1",
        "jti": uuid4().hex,
        "type": kind,
        "iat": now,
        "nbf": now,
        "exp": now + 900,
    }
    if kind == "access":
        base["role"] = "user"
    return changed(base, changes)


def token_with(kind: str, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Sign a token with the service's key, valid except for the given changes."""
    return signed(header_of(kind, **(header or {})), claims_of(kind, **claims))
