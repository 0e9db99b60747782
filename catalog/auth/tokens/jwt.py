"""Access and refresh tokens: JWT (RFC 7519), following RFC 8725 and RFC 9068.

quart-jwt-extended issues them and holds the caller's identity. Its decoder accepts tokens without
expiry or type as access tokens and answers most others with 422, so this module has the service's
only decoder, and ``guards.py`` is its only user.
"""

import sys
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import uuid4

import jwt
import orjson
from quart import Quart
from quart_jwt_extended import JWTManager, create_access_token, create_refresh_token

from catalog.auth.models import Role
from catalog.auth.tokens.signing_keys import KeyRing
from catalog.db.columns import MAX_ID
from catalog.errors import TokenExpired, TokenInvalid, WrongTokenKind
from catalog.settings import Settings

ISSUER = "catalog"
AUDIENCE = "catalog"
LEEWAY = timedelta(seconds=30)
"""Tolerated clock skew between two instances."""

MAX_TOKEN_LENGTH = 4096
"""Characters; this service's tokens have about 400."""

MAX_KNOWN_TOKENS = 4096
"""Verified tokens that a process caches, 1.3 KiB each: a client sends the same one for minutes, and
verifying it takes 55 µs."""

_COMMON = {"iss", "aud", "type", "role", "alg", "typ", "kid"}
"""Claims and headers that have the same text in many tokens."""

_REQUIRED = ["exp", "iat", "nbf", "sub", "sid", "jti", "type", "iss", "aud"]


class Kind(StrEnum):
    """Kind of a token; its ``type`` claim."""

    ACCESS = "access"
    REFRESH = "refresh"

    @property
    def header_type(self) -> str:
        """The ``typ`` header, so that no other JWT of the same key passes (RFC 8725, 3.11)."""
        return {"access": "at+jwt", "refresh": "rt+jwt"}[self.value]


class Bearer(NamedTuple):
    """Bearer and properties of a token, according to the token itself.

    Attributes:
        user_id: the account (claim ``sub``).
        session_id: the log-in that the token descends from (claim ``sid``).
        kind: access or refresh token.
        token_id: the token's own id (claim ``jti``).
        role: the account's role when the token was issued; access tokens only.
        claims: all claims of the token.
        header: the token's header, with the key's id.
    """

    user_id: int
    session_id: int
    kind: Kind
    token_id: str
    role: Role | None
    claims: dict[str, Any]
    header: dict[str, Any]


class Tokens(JWTManager):  # type: ignore[misc]  # the library is untyped
    """JWT manager of the library that issues tokens with every claim the decoder requires.

    Args:
        app: the app whose ``create_access_token`` this serves.
        keys: the keys that sign and verify the tokens.
        settings: the settings with the lifetime of access tokens.
    """

    def __init__(self, app: Quart, keys: KeyRing, settings: Settings) -> None:
        self._keys = keys
        self._access_life = settings.access_token_ttl
        self._jwt = jwt.PyJWT({"enforce_minimum_key_length": True})
        # Cache of verified tokens, by the token's hash.
        self._known: OrderedDict[bytes, Bearer] = OrderedDict()
        app.config["JWT_IDENTITY_CLAIM"] = "sub"
        super().__init__(app)

    def _create_access_token(
        self, identity: int, _fresh: Any, _life: Any, user_claims: dict[str, Any], **_: Any
    ) -> str:
        """Issue an access token for ``create_access_token``."""
        return self._issue(identity, Kind.ACCESS, user_claims)

    def _create_refresh_token(
        self, identity: int, _life: Any, user_claims: dict[str, Any], **_: Any
    ) -> str:
        """Issue a refresh token for ``create_refresh_token``."""
        return self._issue(identity, Kind.REFRESH, user_claims)

    def access_token(
        self, user_id: int, *, session_id: int, role: Role, session_expires_at: datetime
    ) -> str:
        """Issue an access token, as ``issue_access_token`` does in the app's context."""
        own = _access_claims(session_id, role, session_expires_at)
        return self._issue(user_id, Kind.ACCESS, own)

    def _issue(self, user_id: int, kind: Kind, own_claims: dict[str, Any]) -> str:
        issued_at = datetime.now(UTC)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "jti": uuid4().hex,
            "type": kind.value,
            "iat": issued_at,
            "nbf": issued_at,
            **own_claims,
        }
        if kind is Kind.ACCESS:
            claims["exp"] = min(claims["exp"], issued_at + self._access_life)
        key = self._keys.for_access if kind is Kind.ACCESS else self._keys.for_refresh
        headers = {"typ": kind.header_type, "kid": key.kid}
        return self._jwt.encode(claims, key.signer, key.algorithm, headers=headers)

    def decode(self, token: str, *kinds: Kind) -> Bearer:
        """Verify and decode a token, trusting only what is signed and required.

        Args:
            token: the token as the client sent it.
            kinds: the accepted kinds.

        Raises:
            TokenExpired: the token has expired.
            WrongTokenKind: the token is valid and of the other kind.
            TokenInvalid: any other fault; the reason is not disclosed.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenInvalid
        # Not the token itself: read access to the memory must not yield tokens.
        digest = sha256(token.encode()).digest()
        bearer = self._known.get(digest)
        # The decoder's one check whose result changes with time; in whole seconds, as it compares.
        if bearer is None or int(bearer.claims["exp"]) <= time.time() - LEEWAY.total_seconds():
            bearer = self._verified(token)
            self._known[digest] = bearer
            while len(self._known) > MAX_KNOWN_TOKENS:
                self._known.popitem(last=False)
        if bearer.kind not in kinds:
            raise WrongTokenKind(f"This request requires the {kinds[0]} token.")
        return bearer

    def _verified(self, token: str) -> Bearer:
        if not _is_canonical(token):
            raise TokenInvalid
        key = self._keys.find(_kid_of(token))
        if key is None:
            raise TokenInvalid
        try:
            decoded = self._jwt.decode_complete(
                token,
                key.verifier,
                algorithms=[key.algorithm],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY,
                options={"require": _REQUIRED, "strict_aud": True},
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            # The library does not wrap every exception that a hostile token can cause.
            raise TokenInvalid from None
        bearer = _bearer_of(_shared(decoded["payload"]), _shared(decoded["header"]))
        # A stolen private key must yield access tokens only, nothing that outlives them.
        if bearer.kind is Kind.REFRESH and not key.is_secret:
            raise TokenInvalid
        return bearer


def _is_canonical(token: str) -> bool:
    """Return whether a token is in canonical form, so that one token has one spelling.

    base64url carries no padding, line breaks or other characters (RFC 7515, section 2) and its
    unused bits are zero (RFC 4648, section 3.5). The library's decoder ignores all of these.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        return all(
            urlsafe_b64encode(urlsafe_b64decode(part + "=" * (-len(part) % 4))).rstrip(b"=")
            == part.encode()
            for part in parts
        )
    except ValueError:
        return False


def _kid_of(token: str) -> str:
    """Return the id of the key that a token claims to be signed with.

    The library would decode the whole token for it, at twenty times the cost. If the two ever
    parsed a header differently, a key of this service must still have signed the token.

    Raises:
        TokenInvalid: the token names no key.
    """
    encoded = token.partition(".")[0]
    try:
        header = orjson.loads(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except ValueError:
        raise TokenInvalid from None
    kid = header.get("kid") if isinstance(header, dict) else None
    if not isinstance(kid, str):
        raise TokenInvalid
    return kid


def _shared(members: dict[str, Any]) -> dict[str, Any]:
    """Share names and common texts with other tokens: each would have its own, half of its size."""
    return {
        sys.intern(name): sys.intern(value) if name in _COMMON and type(value) is str else value
        for name, value in members.items()
    }


def _bearer_of(claims: dict[str, Any], header: dict[str, Any]) -> Bearer:
    """Parse a signed token, provided that this service would have issued it as it is.

    Raises:
        TokenInvalid: it would not.
    """
    try:
        kind = Kind(claims["type"])
        role = Role(claims["role"]) if kind is Kind.ACCESS else None
    except (KeyError, ValueError):
        # The claims may be any JSON, unhashable values included.
        raise TokenInvalid from None
    subject, session, token_id = claims["sub"], claims["sid"], claims["jti"]
    if not (_is_id(subject) and _is_id(session) and isinstance(token_id, str)):
        raise TokenInvalid
    if header.get("typ") != kind.header_type:
        raise TokenInvalid
    return Bearer(int(subject), int(session), kind, token_id, role, claims, header)


def _is_id(text: object) -> bool:
    return isinstance(text, str) and text.isascii() and text.isdigit() and 0 < int(text) <= MAX_ID


def successor_id(token_id: str) -> str:
    """Return the id of the refresh token that succeeds the one with this id.

    It is derived, so that every rotation of a token yields the same successor, even while
    instances do not agree on the current key. A predictable id is harmless: a token needs a
    signature.
    """
    return sha256(b"catalog successor 1 " + token_id.encode()).hexdigest()[:32]


def issue_access_token(
    user_id: int, *, session_id: int, role: Role, session_expires_at: datetime
) -> str:
    """Issue an access token, which does not outlive its session; needs the app's context."""
    claims = _access_claims(session_id, role, session_expires_at)
    token: str = create_access_token(identity=user_id, user_claims=claims)
    return token


def _access_claims(session_id: int, role: Role, session_expires_at: datetime) -> dict[str, Any]:
    return {"sid": str(session_id), "role": role.value, "exp": session_expires_at}


def issue_refresh_token(
    user_id: int, *, session_id: int, token_id: str, issued_at: datetime, expires_at: datetime
) -> str:
    """Issue a refresh token; the same arguments give the same token. Needs the app's context."""
    claims = {
        "sid": str(session_id),
        "jti": token_id,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": expires_at,
    }
    token: str = create_refresh_token(identity=user_id, user_claims=claims)
    return token
