"""Who may call a handler: one decorator states it, and a test holds every handler to having one.

The library's own decorators await none of their callbacks and answer a malformed header with
500, so they are not used. These leave the caller where the library looks for it, so that its
``get_jwt_identity`` works as its users know it.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from quart import current_app, g, request
from quart_jwt_extended import get_jwt_identity
from quart_schema import security_scheme

from catalog.auth.tokens import Kind, Tokens
from catalog.errors import TokenInvalid, TokenMissing

P = ParamSpec("P")
T = TypeVar("T")

View = Callable[P, Awaitable[T]]

BEARER = "bearer"
"""The name of the security scheme in the OpenAPI document."""

_AUDIENCE_ATTRIBUTE = "catalog_audience"


def public(view: View[P, T]) -> View[P, T]:
    """Anyone may call it; a token is not looked at."""
    setattr(view, _AUDIENCE_ATTRIBUTE, "public")
    return view


def signed_in(view: View[P, T]) -> View[P, T]:
    """Needs an access token; ``caller_id()`` is its owner."""
    return _guarded(view, Kind.ACCESS)


def refreshing(view: View[P, T]) -> View[P, T]:
    """Needs a refresh token; ``caller_id()`` is its owner."""
    return _guarded(view, Kind.REFRESH)


def _guarded(view: View[P, T], kind: Kind) -> View[P, T]:
    @wraps(view)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        tokens: Tokens = current_app.extensions["quart-jwt-extended"]
        claims, header = tokens.decode(bearer_token(), kind)
        g._jwt_extended_jwt = claims
        g._jwt_extended_jwt_header = header
        return await view(*args, **kwargs)

    setattr(guarded, _AUDIENCE_ATTRIBUTE, kind.value)
    return security_scheme([{BEARER: []}])(guarded)


def bearer_token() -> str:
    """The token of ``Authorization: Bearer`` (RFC 6750, section 2.1).

    Raises:
        TokenMissing: there is no such header, or it is of another scheme.
        TokenInvalid: there are two, or what follows the scheme is not one token.
    """
    values = request.headers.getlist("Authorization")
    if not values:
        raise TokenMissing
    scheme, _, token = values[0].strip().partition(" ")
    if scheme.lower() != "bearer":
        raise TokenMissing
    token = token.strip()
    if len(values) > 1 or not token or " " in token or not token.isascii():
        raise TokenInvalid
    return token


def caller_id() -> int:
    """The account that is calling; only behind a guard."""
    return int(get_jwt_identity())


def audience_of(view: object) -> str | None:
    """Who may call a view: ``public``, ``access``, ``refresh``; None when it does not say."""
    return getattr(view, _AUDIENCE_ATTRIBUTE, None)
