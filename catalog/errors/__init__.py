"""Hierarchy of the service's errors.

``http/replies/problems.py`` renders them as problem details (RFC 9457); the command line prints
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
    - ScopeInsufficient (403, scope-insufficient)
    - SessionRequired (403, session-required)
    - WrongPassword (403, password-wrong)
  x NotFound (404, not-found)
  x MethodNotAllowed (405, method-not-allowed)
  x NotAcceptable (406, not-acceptable)
  x RequestTimeout (408, request-timeout)
  x Conflict (409, conflict)
    - DuplicateValue (409, taken)
    - LastAdmin (409, last-admin)
    - TooManyApiKeys (409, too-many-keys)
    - IdempotencyKeyInUse (409, idempotency-key-in-use)
  x ChangesGone (410, changes-gone)
  x PreconditionFailed (412, precondition-failed)
  x BodyTooLarge (413, body-too-large)
  x UriTooLong (414, uri-too-long)
  x UnsupportedMediaType (415, unsupported-media-type)
  x InvalidRequest (422, invalid)
    - LinesInvalid (422, lines-invalid)
    - IdempotencyKeyReused (422, idempotency-key-reused)
  x HeadersTooLarge (431, headers-too-large)
  x TooManyRequests (429, rate-limited)
    - LoginThrottled (429, too-many-guesses)
    - ApiKeysThrottled (429, too-many-unknown-keys)
  x InternalError (500, internal-error)
  x MethodNotImplemented (501, not-implemented)
  x VersionNotSupported (505, version-not-supported)
  x Unavailable (503)
    - DatabaseUnavailable (database-unavailable)
    - DatabaseBusy (database-busy)
    - Overloaded (overloaded)
    - NotReady (not-ready)
  x OperatorError: never sent over HTTP; the command line prints it
    - CannotCheck
    - SettingsInvalid
    - StartFailed
"""

from collections.abc import Iterator

from catalog.errors.access import (
    AccountUnavailable,
    Forbidden,
    ScopeInsufficient,
    SessionEnded,
    SessionRequired,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    TokenReused,
    Unauthenticated,
    WrongCredentials,
    WrongPassword,
    WrongTokenKind,
)
from catalog.errors.availability import (
    ApiKeysThrottled,
    DatabaseBusy,
    DatabaseUnavailable,
    InternalError,
    LoginThrottled,
    NotReady,
    Overloaded,
    TooManyRequests,
    Unavailable,
)
from catalog.errors.base import CatalogError, FieldError, caused
from catalog.errors.operation import CannotCheck, OperatorError, SettingsInvalid, StartFailed
from catalog.errors.requests import (
    BodyTooLarge,
    HeadersTooLarge,
    IdempotencyKeyReused,
    InvalidCursor,
    InvalidRequest,
    LinesInvalid,
    MalformedRequest,
    MethodNotImplemented,
    NotAcceptable,
    RequestTimeout,
    UnsupportedMediaType,
    UriTooLong,
    VersionNotSupported,
)
from catalog.errors.resources import (
    ChangesGone,
    Conflict,
    DuplicateValue,
    IdempotencyKeyInUse,
    LastAdmin,
    MethodNotAllowed,
    NotFound,
    PreconditionFailed,
    TooManyApiKeys,
)

__all__ = [
    "AccountUnavailable",
    "ApiKeysThrottled",
    "BodyTooLarge",
    "CannotCheck",
    "CatalogError",
    "ChangesGone",
    "Conflict",
    "DatabaseBusy",
    "DatabaseUnavailable",
    "DuplicateValue",
    "FieldError",
    "Forbidden",
    "HeadersTooLarge",
    "IdempotencyKeyInUse",
    "IdempotencyKeyReused",
    "InternalError",
    "InvalidCursor",
    "InvalidRequest",
    "LastAdmin",
    "LinesInvalid",
    "LoginThrottled",
    "MalformedRequest",
    "MethodNotAllowed",
    "MethodNotImplemented",
    "NotAcceptable",
    "NotFound",
    "NotReady",
    "OperatorError",
    "Overloaded",
    "PreconditionFailed",
    "RequestTimeout",
    "ScopeInsufficient",
    "SessionEnded",
    "SessionRequired",
    "SettingsInvalid",
    "StartFailed",
    "TokenExpired",
    "TokenInvalid",
    "TokenMissing",
    "TokenReused",
    "TooManyApiKeys",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedMediaType",
    "UriTooLong",
    "VersionNotSupported",
    "WrongCredentials",
    "WrongPassword",
    "WrongTokenKind",
    "caused",
    "public_errors",
]


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
