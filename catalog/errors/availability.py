"""Refusals for want of capacity, and failures of the service."""

from catalog.errors.base import CatalogError


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


class ApiKeysThrottled(TooManyRequests):
    """Too many unknown API keys from this address; keys in use elsewhere still work."""

    slug = "too-many-unknown-keys"
    title = "Too many unknown API keys"


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
