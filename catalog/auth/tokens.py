"""Access and refresh tokens: JWT (RFC 7519) after the advice of RFC 8725 and RFC 9068.

quart-jwt-extended issues them and holds the identity of the caller. Its decoder takes tokens
without expiry or type for access tokens and answers most others with 422, so here is the one
decoder of the service, and ``guards.py`` its one user.
"""

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

from catalog.auth.keys import KeyRing
from catalog.auth.models import Role
from catalog.db.columns import MAX_ID
from catalog.errors import TokenExpired, TokenInvalid, WrongTokenKind
from catalog.settings import Settings

ISSUER = "catalog"
AUDIENCE = "catalog"
LEEWAY = timedelta(seconds=30)
"""How far the clocks of two instances may be apart."""

MAX_TOKEN_LENGTH = 4096
"""Characters; ours have some 400."""

MAX_KNOWN_TOKENS = 4096
"""Tokens that a process does not verify again: a client sends the same one for minutes, and to
verify it takes 55 µs."""

_REQUIRED = ["exp", "iat", "nbf", "sub", "sid", "jti", "type", "iss", "aud"]


class Kind(StrEnum):
    """What a token is for; its ``type`` claim."""

    ACCESS = "access"
    REFRESH = "refresh"

    @property
    def header_type(self) -> str:
        """Its ``typ`` header, so that no other JWT of the same key passes (RFC 8725, 3.11)."""
        return {"access": "at+jwt", "refresh": "rt+jwt"}[self.value]


class Bearer(NamedTuple):
    """Who holds a token and what it is, as far as the token itself says.

    Attributes:
        user_id: the account (claim ``sub``).
        session_id: the log-in that it came from (claim ``sid``).
        kind: what it is for.
        token_id: the token's own id (claim ``jti``).
        role: what the account could do when the token was issued; access tokens only.
        claims: all that the token says.
        header: what stands before that, such as the key's id.
    """

    user_id: int
    session_id: int
    kind: Kind
    token_id: str
    role: Role | None
    claims: dict[str, Any]
    header: dict[str, Any]


class Tokens(JWTManager):  # type: ignore[misc]  # the library is untyped
    """The library's manager, issuing tokens with every claim that the decoder asks for.

    Args:
        app: the app whose ``create_access_token`` this serves.
        keys: what they are signed and verified with.
        settings: how long access tokens live.
    """

    def __init__(self, app: Quart, keys: KeyRing, settings: Settings) -> None:
        self._keys = keys
        self._access_life = settings.access_token_ttl
        self._jwt = jwt.PyJWT({"enforce_minimum_key_length": True})
        # What was verified here before, by the token's hash.
        self._known: OrderedDict[bytes, Bearer] = OrderedDict()
        app.config["JWT_IDENTITY_CLAIM"] = "sub"
        super().__init__(app)

    def _create_access_token(
        self, identity: int, _fresh: Any, _life: Any, user_claims: dict[str, Any], **_: Any
    ) -> str:
        """What ``create_access_token`` calls."""
        return self._issue(identity, Kind.ACCESS, user_claims)

    def _create_refresh_token(
        self, identity: int, _life: Any, user_claims: dict[str, Any], **_: Any
    ) -> str:
        """What ``create_refresh_token`` calls."""
        return self._issue(identity, Kind.REFRESH, user_claims)

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
        """Read a token and believe nothing about it that is not signed and required.

        Args:
            token: what the client sent.
            kinds: those that are welcome.

        Raises:
            TokenExpired: it was good once.
            WrongTokenKind: it is a good token of the other kind.
            TokenInvalid: anything else; why is not told.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenInvalid
        # Not the token itself: who gets to see the memory is not to get tokens as well.
        digest = sha256(token.encode()).digest()
        bearer = self._known.get(digest)
        # Of what the decoder looks at, only this changes with time; as it does, in whole seconds.
        if bearer is None or int(bearer.claims["exp"]) <= time.time() - LEEWAY.total_seconds():
            bearer = self._verified(token)
            self._known[digest] = bearer
            while len(self._known) > MAX_KNOWN_TOKENS:
                self._known.popitem(last=False)
        if bearer.kind not in kinds:
            raise WrongTokenKind(f"This needs the {kinds[0]} token.")
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
            # Not all of what a hostile token can cause is wrapped by the library.
            raise TokenInvalid from None
        bearer = _bearer_of(decoded["payload"], decoded["header"])
        # Whoever gets hold of the private key makes access tokens and nothing that outlives them.
        if bearer.kind is Kind.REFRESH and not key.is_secret:
            raise TokenInvalid
        return bearer


def _is_canonical(token: str) -> bool:
    """Tell whether a token is spelled as its parts encode: one token has one spelling.

    base64url carries no padding, line breaks or other characters (RFC 7515, section 2) and its
    unused bits are zero (RFC 4648, section 3.5). The library's decoder skips and ignores them all.
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
    """The name of the key that a token claims to be signed with.

    The library would decode the whole token for it, at twenty times the cost. Should the two ever
    read a header differently, it is still a key of ours that must have signed it.

    Raises:
        TokenInvalid: it names none.
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


def _bearer_of(claims: dict[str, Any], header: dict[str, Any]) -> Bearer:
    """What a signed token says, where that is what this service would have written.

    Raises:
        TokenInvalid: it is not.
    """
    try:
        kind = Kind(claims["type"])
        role = Role(claims["role"]) if kind is Kind.ACCESS else None
    except (KeyError, ValueError):
        # Any JSON may stand there, also what no set could look up.
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
    """The id of the refresh token that a rotation makes of the one with this id.

    It is derived, so that everybody who may rotate the same token makes the same successor, also
    while instances do not agree on the current key. That it can be foreseen helps nobody: a token
    is made by its signature.
    """
    return sha256(b"catalog successor 1 " + token_id.encode()).hexdigest()[:32]


def issue_access_token(
    user_id: int, *, session_id: int, role: Role, session_expires_at: datetime
) -> str:
    """A new access token, which does not outlive its session; needs the app's context."""
    claims = {"sid": str(session_id), "role": role.value, "exp": session_expires_at}
    token: str = create_access_token(identity=user_id, user_claims=claims)
    return token


def issue_refresh_token(
    user_id: int, *, session_id: int, token_id: str, issued_at: datetime, expires_at: datetime
) -> str:
    """A refresh token; the same arguments make the same token. Needs the app's context."""
    claims = {
        "sid": str(session_id),
        "jti": token_id,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": expires_at,
    }
    token: str = create_refresh_token(identity=user_id, user_claims=claims)
    return token
