"""Decorators that state the token or key a handler requires; a test demands one on every handler.

The library's own decorators do not await their callbacks and answer a malformed header with 500,
so they are not used. Within the framework these store the claims where the library looks for them,
so that its ``get_jwt_identity`` works as usual.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

from quart import Quart, g, has_request_context
from quart_schema import security_scheme

from catalog.auth.audit import Audit, record
from catalog.auth.context import auth
from catalog.auth.models import Role, Scope
from catalog.auth.tokens.api_key_cache import KeyBearer
from catalog.auth.tokens.api_keys import PREFIX
from catalog.auth.tokens.jwt import Bearer, Kind, Tokens
from catalog.db.deadlines import after_waiting
from catalog.errors import (
    ApiKeysThrottled,
    Forbidden,
    ScopeInsufficient,
    SessionRequired,
    TokenInvalid,
    TokenMissing,
    WrongTokenKind,
)
from catalog.http.limits import client_network
from catalog.http.openapi import refuses
from catalog.http.request import USER_ID, annotate, current_request

P = ParamSpec("P")
T = TypeVar("T")

View = Callable[P, Awaitable[T]]

BEARER = "bearer"
"""Name of the security scheme in the OpenAPI document."""

_AUDIENCE_ATTRIBUTE = "catalog_audience"

LEAST_WAIT_SECONDS = 0.01
"""Shortest wait for the check of a token or key that counts as part of the request's deadline."""

_READING = {"GET", "HEAD", "OPTIONS"}
"""Methods that an API key of the scope ``read`` may use."""

Admit = Callable[[str], Awaitable[Bearer]]
AdmitKey = Callable[[str], Awaitable[KeyBearer]]


def public(view: View[P, T]) -> View[P, T]:
    """Allow all callers; a token is ignored."""
    setattr(view, _AUDIENCE_ATTRIBUTE, "public")
    return view


def signed_in(view: View[P, T]) -> View[P, T]:
    """Require an access token of a live session, or an API key; ``caller_id()`` is its account.

    A key of the scope ``read`` is refused unless the method only reads.
    """
    view = refuses(ScopeInsufficient, ApiKeysThrottled)(view)
    return _guarded(view, "access", _authenticate, _authenticate_key)


def session_required(view: View[P, T]) -> View[P, T]:
    """Require an access token of a live session; ``caller()`` is its bearer."""
    view = refuses(SessionRequired, ApiKeysThrottled)(view)
    return _guarded(view, "session", _authenticate, _refuse_verified_key)


def for_admins(view: View[P, T]) -> View[P, T]:
    """Require an administrator's access token; ``caller_id()`` is the account."""
    view = refuses(SessionRequired, ApiKeysThrottled)(view)
    return _guarded(view, "admin", _authenticate_admin, _refuse_verified_key)


def refresh_token_required(view: View[P, T]) -> View[P, T]:
    """Require a refresh token; ``caller()`` is its bearer, whose session is not checked yet."""
    return _guarded(view, "refresh", _decode_refresh, _refuse_any_key)


def any_token_required(view: View[P, T]) -> View[P, T]:
    """Require a token of either kind; ``caller()`` is its bearer, whose session may have ended."""
    return _guarded(view, "any", _decode_any, _refuse_any_key)


async def _authenticate(token: str) -> Bearer:
    bearer = _decode(token, Kind.ACCESS)
    revocations = auth().revocations
    if revocations.has_lapsed:
        await revocations.refresh()
    role = revocations.check(bearer)
    return bearer if role is bearer.role else bearer._replace(role=role)


async def _authenticate_admin(token: str) -> Bearer:
    bearer = await _authenticate(token)
    if bearer.role is not Role.ADMIN:
        record(Audit.ACCESS_REFUSED, user_id=bearer.user_id, session_id=bearer.session_id)
        raise Forbidden("Only an administrator may do this.")
    return bearer


async def _decode_refresh(token: str) -> Bearer:
    return _decode(token, Kind.REFRESH)


async def _decode_any(token: str) -> Bearer:
    return _decode(token, Kind.ACCESS, Kind.REFRESH)


def _decode(token: str, *kinds: Kind) -> Bearer:
    bearer = tokens().decode(token, *kinds)
    # Before any further check, so that the access log names the account of a refused request.
    annotate(current_request().scope, USER_ID, str(bearer.user_id))
    return bearer


async def _authenticate_key(key: str) -> KeyBearer:
    bearer = await _verify_key(key)
    if bearer.scope is Scope.READ and current_request().method not in _READING:
        raise ScopeInsufficient
    return bearer


async def _refuse_verified_key(key: str) -> KeyBearer:
    bearer = await _verify_key(key)
    record(Audit.ACCESS_REFUSED, user_id=bearer.user_id, key_id=bearer.key_id)
    raise SessionRequired


async def _refuse_any_key(_: str) -> KeyBearer:
    raise WrongTokenKind("This request requires a token of a session, not an API key.")


async def _verify_key(key: str) -> KeyBearer:
    bearer = await auth().api_key_cache.authenticate(key, network=client_network())
    annotate(current_request().scope, USER_ID, str(bearer.user_id))
    return bearer


def _guarded(view: View[P, T], audience: str, admit: Admit, admit_key: AdmitKey) -> View[P, T]:
    @wraps(view)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        token = bearer_token()
        clock = asyncio.get_running_loop().time
        began = clock()
        bearer = await (admit_key if token.startswith(PREFIX) else admit)(token)
        waited = clock() - began
        current_request().bearer = bearer
        if has_request_context():
            # Where the library's get_jwt_identity and similar functions look.
            g._jwt_extended_jwt = bearer.claims
            g._jwt_extended_jwt_header = bearer.header
        if waited < LEAST_WAIT_SECONDS:
            return await view(*args, **kwargs)
        with after_waiting(waited):
            return await view(*args, **kwargs)

    setattr(guarded, _AUDIENCE_ATTRIBUTE, audience)
    return security_scheme([{BEARER: []}])(guarded)


def bearer_token() -> str:
    """Return the token of ``Authorization: Bearer`` (RFC 6750, section 2.1).

    Raises:
        TokenMissing: the header is missing or has another scheme.
        TokenInvalid: there are two headers, or the scheme is not followed by exactly one token.
    """
    return token_among(current_request().header_values("authorization"))


def token_among(values: Sequence[str]) -> str:
    """Return the token of a request's ``Authorization`` fields; raises as ``bearer_token``."""
    if not values:
        raise TokenMissing
    # Only HTTP's whitespace: str.strip() without arguments also removes a no-break space.
    scheme, _, token = values[0].strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        raise TokenMissing
    token = token.strip(" ")
    if len(values) > 1 or not token or " " in token or not token.isascii():
        raise TokenInvalid
    return token


def caller() -> Bearer:
    """Return the caller's decoded token; only behind a guard that takes no API key."""
    bearer: Bearer = current_request().bearer
    return bearer


def caller_id() -> int:
    """Return the caller's account id; only behind a guard."""
    bearer: Bearer | KeyBearer = current_request().bearer
    return bearer.user_id


def may_administer() -> bool:
    """Return whether the caller may use the rights of its role: an API key may not."""
    return isinstance(current_request().bearer, Bearer)


def tokens(app: Quart | None = None) -> Tokens:
    """Return the token manager of the given app, or of the one handling this request."""
    held: Tokens = (app or current_request().app).extensions["quart-jwt-extended"]
    return held


def audience_of(view: object) -> str | None:
    """Return a view's audience: ``public``, ``access``, ``session``, ``admin``, …; or None."""
    return getattr(view, _AUDIENCE_ATTRIBUTE, None)
