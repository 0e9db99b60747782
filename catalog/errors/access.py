"""Refusals of a caller: not authenticated, or not allowed."""

from typing import ClassVar

from catalog.errors.base import CatalogError


class Unauthenticated(CatalogError):
    """The caller is not authenticated; carries the challenge of RFC 6750, section 3."""

    status = 401
    #: RFC 6750, section 3.1; empty when the request carried no token at all.
    challenge_error: ClassVar[str] = "invalid_token"

    def __init__(self, detail: str = "") -> None:
        error = f', error="{self.challenge_error}"' if self.challenge_error else ""
        super().__init__(detail, headers={"WWW-Authenticate": f'Bearer realm="catalog"{error}'})


class WrongCredentials(Unauthenticated):
    """The username is unknown or the password is wrong; the response never tells which."""

    slug = "credentials-wrong"
    title = "The username or the password is wrong"
    challenge_error = ""


class TokenMissing(Unauthenticated):
    """The request needs ``Authorization: Bearer`` with a token and has none."""

    slug = "token-missing"
    title = "A token is required"
    challenge_error = ""


class TokenInvalid(Unauthenticated):
    """The token was not issued by this service, or has been modified."""

    slug = "token-invalid"
    title = "The token is not valid"


class TokenExpired(Unauthenticated):
    """The token has expired; refresh it or sign in again."""

    slug = "token-expired"
    title = "The token has expired"


class WrongTokenKind(Unauthenticated):
    """A refresh token where an access token belongs, or the other way round."""

    slug = "token-wrong-kind"
    title = "The token is of the wrong kind"


class AccountUnavailable(Unauthenticated):
    """The token is valid, but its account is disabled or deleted."""

    slug = "account-unavailable"
    title = "The account is disabled or deleted"


class SessionEnded(Unauthenticated):
    """The token's session has ended: logged out, revoked or expired; sign in again."""

    slug = "session-ended"
    title = "The session has ended"


class TokenReused(Unauthenticated):
    """A superseded refresh token was used again; it counts as stolen, so its session ends."""

    slug = "token-reused"
    title = "The token has been superseded"


class Forbidden(CatalogError):
    """The caller is authenticated but not allowed to do this."""

    slug = "forbidden"
    status = 403
    title = "You are not allowed to do this"


class ScopeInsufficient(Forbidden):
    """The API key may only read."""

    slug = "scope-insufficient"
    title = "The API key may only read"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        # RFC 6750, section 3.1.
        challenge = 'Bearer realm="catalog", error="insufficient_scope", scope="write"'
        self.headers["WWW-Authenticate"] = challenge


class SessionRequired(Forbidden):
    """An API key may not do this; it takes the access token of a log-in."""

    slug = "session-required"
    title = "An API key may not do this"


class WrongPassword(Forbidden):
    """The caller is authenticated, but the password that this operation requires is wrong."""

    slug = "password-wrong"
    title = "The password is wrong"
