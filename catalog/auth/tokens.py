"""Access and refresh tokens: JWT (RFC 7519) after the advice of RFC 8725 and RFC 9068.

quart-jwt-extended issues them and holds the identity of the caller. Its decoder takes tokens
without expiry or type for access tokens and answers most others with 422, so here is the one
decoder of the service, and ``guards.py`` its one user.
"""

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import uuid4

import jwt
from quart import Quart
from quart_jwt_extended import JWTManager, create_access_token, create_refresh_token

from catalog.db.columns import MAX_ID
from catalog.errors import StartFailed, TokenExpired, TokenInvalid, WrongTokenKind
from catalog.settings import MIN_SECRET_BYTES, Settings

ALGORITHM = "HS256"
ISSUER = "catalog"
AUDIENCE = "catalog"
LEEWAY = timedelta(seconds=30)
"""How far the clocks of two instances may be apart."""

MAX_TOKEN_LENGTH = 4096
"""Characters; ours have some 400."""

_REQUIRED = ["exp", "iat", "nbf", "sub", "jti", "type", "iss", "aud"]


class Kind(StrEnum):
    """What a token is for; its ``type`` claim."""

    ACCESS = "access"
    REFRESH = "refresh"

    @property
    def header_type(self) -> str:
        """Its ``typ`` header, so that no other JWT of the same key passes (RFC 8725, 3.11)."""
        return {"access": "at+jwt", "refresh": "rt+jwt"}[self.value]


class Tokens(JWTManager):  # type: ignore[misc]  # the library is untyped
    """The library's manager, issuing tokens with every claim that the decoder asks for.

    Args:
        app: the app whose ``create_access_token`` this serves.
        secret: the key, of at least 32 bytes.
        settings: how long tokens live.
    """

    def __init__(self, app: Quart, secret: str, settings: Settings) -> None:
        self._secret = secret
        self._lives = {
            Kind.ACCESS: settings.access_token_ttl,
            Kind.REFRESH: settings.refresh_token_ttl,
        }
        self._jwt = jwt.PyJWT({"enforce_minimum_key_length": True})
        app.config["JWT_SECRET_KEY"] = secret
        app.config["JWT_ALGORITHM"] = ALGORITHM
        app.config["JWT_IDENTITY_CLAIM"] = "sub"
        super().__init__(app)

    def _create_access_token(self, identity: int, *_: Any, **__: Any) -> str:
        """What ``create_access_token`` calls; its options have no use here."""
        return self._issue(identity, Kind.ACCESS)

    def _create_refresh_token(self, identity: int, *_: Any, **__: Any) -> str:
        """What ``create_refresh_token`` calls."""
        return self._issue(identity, Kind.REFRESH)

    def _issue(self, user_id: int, kind: Kind) -> str:
        issued_at = datetime.now(UTC)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "jti": uuid4().hex,
            "type": kind.value,
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + self._lives[kind],
        }
        headers = {"typ": kind.header_type}
        return self._jwt.encode(claims, self._secret, ALGORITHM, headers=headers)

    def decode(self, token: str, kind: Kind) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a token and believe nothing about it that is not signed and required.

        Returns:
            its claims and its header.

        Raises:
            TokenExpired: it was good once.
            WrongTokenKind: it is a good token of the other kind.
            TokenInvalid: anything else; why is not told.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenInvalid
        try:
            decoded = self._jwt.decode_complete(
                token,
                self._secret,
                algorithms=[ALGORITHM],
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
        claims, header = decoded["payload"], decoded["header"]
        try:
            found = Kind(claims["type"])
        except ValueError:
            # Any JSON may stand there, also what no set could look up.
            raise TokenInvalid from None
        if header.get("typ") != found.header_type:
            raise TokenInvalid
        if found is not kind:
            raise WrongTokenKind(f"This needs the {kind} token.")
        if not _is_id(claims["sub"]) or not isinstance(claims["jti"], str):
            raise TokenInvalid
        return claims, header


def _is_id(subject: object) -> bool:
    return (
        isinstance(subject, str)
        and subject.isascii()
        and subject.isdigit()
        and 0 < int(subject) <= MAX_ID
    )


def issue_access_token(user_id: int) -> str:
    """A new access token; needs the app's context."""
    token: str = create_access_token(identity=user_id)
    return token


def issue_refresh_token(user_id: int) -> str:
    """A new refresh token; needs the app's context."""
    token: str = create_refresh_token(identity=user_id)
    return token


def signing_secret(settings: Settings) -> str:
    """The key from the settings or, in development, one made once and kept on this machine.

    Of several processes that make one at the same time, all get the one that was there first.

    Raises:
        StartFailed: it can be neither read nor kept.
    """
    if settings.jwt_secret_key is not None:
        return settings.jwt_secret_key.get_secret_value()
    path = settings.data_dir / "jwt_secret_key"
    try:
        if not path.exists():
            _keep(path, token_hex(MIN_SECRET_BYTES))
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartFailed(f"The signing key in {path} is out of reach: {error}.") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise StartFailed(f"The signing key in {path} is too short; delete the file.")
    return secret


def _keep(path: Path, secret: str) -> None:
    """Write a secret that only this user may read, whole or not at all, unless there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
    try:
        # A link, unlike a rename, never replaces what another process kept first.
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
