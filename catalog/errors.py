"""Hierarchy of the service's errors.

``http/problems.py`` renders them as problem details (RFC 9457); the command line prints
``title: detail``. The slug is part of the API's contract: clients branch on it.

* CatalogError
  x MalformedRequest (400, malformed)
    - InvalidCursor (400, cursor-invalid)
  x Unauthenticated (401)
    - WrongCredentials (credentials-wrong)
    - TokenMissing (token-missing)
    - TokenInvalid (token-invalid)
    - TokenExpired (token-expired)
    - WrongTokenKind (token-wrong-kind)
    - AccountUnavailable (account-unavailable)
    - SessionEnded (session-ended)
    - TokenReused (token-reused)
  x Forbidden (403, forbidden)
    - WrongPassword (403, password-wrong)
  x NotFound (404, not-found)
  x MethodNotAllowed (405, method-not-allowed)
  x NotAcceptable (406, not-acceptable)
  x RequestTimeout (408, request-timeout)
  x Conflict (409, conflict)
    - DuplicateValue (409, taken)
    - LastAdmin (409, last-admin)
    - KeyInUse (409, idempotency-key-in-use)
  x ChangesGone (410, changes-gone)
  x PreconditionFailed (412, precondition-failed)
  x BodyTooLarge (413, body-too-large)
  x UnsupportedMediaType (415, unsupported-media-type)
  x InvalidRequest (422, invalid)
    - LinesInvalid (422, lines-invalid)
    - KeyReused (422, idempotency-key-reused)
  x TooManyRequests (429, rate-limited)
    - LoginThrottled (429, too-many-guesses)
  x InternalError (500, internal-error)
  x Unavailable (503)
    - DatabaseUnavailable (database-unavailable)
    - DatabaseBusy (database-busy)
    - Overloaded (overloaded)
    - NotReady (not-ready)
  x OperatorError: never sent over HTTP; the command line prints it
    - SettingsInvalid
    - StartFailed
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

E = TypeVar("E", bound=Exception)


@dataclass(frozen=True, slots=True)
class FieldError:
    """Validation error of one part of a request.

    Attributes:
        place: where ``name`` is found: a JSON pointer into the body (RFC 6901), a query parameter
            or a header.
        name: the pointer, or the parameter's or header's name.
        message: a human-readable sentence; never repeats the value, which may be a password.
    """

    place: Literal["pointer", "parameter", "header"]
    name: str
    message: str


class CatalogError(Exception):
    """Base of all errors; each concrete subclass has a stable slug.

    Args:
        detail: a sentence about this occurrence, safe to show to any client.
        errors: validation errors by field.
        headers: headers that the response must carry, such as ``Allow``.
        members: further members of its problem details (RFC 9457, section 3.2).
    """

    slug: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or f"{self.title}."
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members = dict(members or {})


def caused(error: E, cause: BaseException | None) -> E:
    """Return an error with its cause set, for errors that are passed on instead of raised."""
    error.__cause__ = cause
    return error


class MalformedRequest(CatalogError):
    """The request cannot be parsed: it is not UTF-8, not JSON, or not a cursor."""

    slug = "malformed"
    status = 400
    title = "The request is malformed"


class InvalidCursor(MalformedRequest):
    """The cursor was not made by this service, or belongs to another list, sort or filter."""

    slug = "cursor-invalid"
    title = "The cursor is not valid for this list"


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


class WrongPassword(Forbidden):
    """The caller is authenticated, but the password that this operation requires is wrong."""

    slug = "password-wrong"
    title = "The password is wrong"


class NotFound(CatalogError):
    """There is no such resource."""

    slug = "not-found"
    status = 404
    title = "There is no such resource"


class MethodNotAllowed(CatalogError):
    """The resource exists but does not support the method; ``Allow`` lists those it supports."""

    slug = "method-not-allowed"
    status = 405
    title = "The resource does not support this method"


class NotAcceptable(CatalogError):
    """``Accept`` excludes every representation the resource has."""

    slug = "not-acceptable"
    status = 406
    title = "No acceptable representation"


class RequestTimeout(CatalogError):
    """The body did not arrive in time."""

    slug = "request-timeout"
    status = 408
    title = "The request took too long to arrive"


class Conflict(CatalogError):
    """The request conflicts with the current state; a retry may or may not succeed."""

    slug = "conflict"
    status = 409
    title = "The request conflicts with the current state"


class DuplicateValue(Conflict):
    """Another resource already has this value of a unique field."""

    slug = "taken"
    title = "The value is already taken"


class LastAdmin(Conflict):
    """The change would leave the service without an enabled administrator."""

    slug = "last-admin"
    title = "At least one administrator must remain"


class KeyInUse(Conflict):
    """A request with the same ``Idempotency-Key`` is still in progress."""

    slug = "idempotency-key-in-use"
    title = "A request with this key is still in progress"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class ChangesGone(CatalogError):
    """The change log does not contain the position from which the client wants to resume."""

    slug = "changes-gone"
    status = 410
    title = "The changes since this position are not available"

    START_OVER: ClassVar = (
        "Start over: export GET /api/products as application/x-ndjson, then follow from the "
        "Catalog-Change of that response."
    )


class PreconditionFailed(CatalogError):
    """The resource does not match ``If-Match``; ``current`` holds its current representation.

    Args:
        current: the resource, ready to render, if it is known.
    """

    slug = "precondition-failed"
    status = 412
    title = "The resource has changed in the meantime"

    def __init__(self, *, current: Mapping[str, object] | None = None) -> None:
        super().__init__(members={} if current is None else {"current": current})


class BodyTooLarge(CatalogError):
    """The body exceeds the size limit."""

    slug = "body-too-large"
    status = 413
    title = "The body is too large"


class UnsupportedMediaType(CatalogError):
    """The resource does not accept the body's media type."""

    slug = "unsupported-media-type"
    status = 415
    title = "The body's media type is not supported"


class InvalidRequest(CatalogError):
    """The request is well-formed, but fields or parameters are invalid; ``errors`` lists them."""

    slug = "invalid"
    status = 422
    title = "A field is not valid"


class KeyReused(InvalidRequest):
    """The ``Idempotency-Key`` was used for a request with other content."""

    slug = "idempotency-key-reused"
    title = "The key was used for another request"


class LinesInvalid(InvalidRequest):
    """Lines of a bulk import are invalid, so nothing was written."""

    slug = "lines-invalid"
    title = "Lines of the body are not valid"


class TooManyRequests(CatalogError):
    """The address has exceeded its rate limit; ``Retry-After`` says when to retry.

    Args:
        retry_after_seconds: whole seconds (RFC 9110, section 10.2.3).
    """

    slug = "rate-limited"
    status = 429
    title = "Too many requests"

    def __init__(self, detail: str = "", *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_seconds)})


class LoginThrottled(TooManyRequests):
    """Too many wrong passwords for this account from this address; others can still sign in."""

    slug = "too-many-guesses"
    title = "Too many wrong passwords"


class InternalError(CatalogError):
    """An unexpected error; the log has the traceback under the same request id."""

    slug = "internal-error"
    status = 500
    title = "An internal error occurred"


class Unavailable(CatalogError):
    """A dependency or capacity is temporarily unavailable; ``Retry-After`` says when to retry.

    Args:
        retry_after_seconds: whole seconds (RFC 9110, section 10.2.3).
    """

    status = 503

    def __init__(self, detail: str = "", *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_seconds)})


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, is shutting down, or did not answer in time."""

    slug = "database-unavailable"
    title = "The database is not available"


class DatabaseBusy(Unavailable):
    """The database is reachable, but no connection or lock came free in time."""

    slug = "database-busy"
    title = "The database is busy"


class Overloaded(Unavailable):
    """The process has reached a capacity limit and sheds load."""

    slug = "overloaded"
    title = "The service is busy"


class NotReady(Unavailable):
    """The instance must not receive traffic: it is draining, or its schema is not current."""

    slug = "not-ready"
    title = "The service is not ready"


class OperatorError(CatalogError):
    """Base of errors for the operator; the command line prints them and exits non-zero."""

    slug = "operator-error"
    status = 500
    title = "The service cannot run"


class SettingsInvalid(OperatorError):
    """Settings are missing or invalid.

    Attributes:
        faults: one line each, naming the variable and never its value when that is a secret.
    """

    title = "The settings are not valid"

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class StartFailed(OperatorError):
    """The service cannot start, for instance because its database rejects it or its port is taken.

    A database whose schema is newer than this release is another reason.
    """

    title = "The service cannot start"


def public_errors() -> Iterator[type[CatalogError]]:
    """Yield every error that a client may receive, once each, in breadth-first order."""
    pending: list[type[CatalogError]] = [CatalogError]
    while pending:
        kind = pending.pop(0)
        if issubclass(kind, OperatorError):
            continue
        if "slug" in vars(kind):
            yield kind
        pending.extend(kind.__subclasses__())
