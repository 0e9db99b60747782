"""Refusals because of the state of a resource."""

from collections.abc import Mapping
from typing import ClassVar

from catalog.errors.base import CatalogError


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


class TooManyApiKeys(Conflict):
    """The account has as many API keys as it may have; revoke one first."""

    slug = "too-many-keys"
    title = "The account has too many API keys"


class IdempotencyKeyInUse(Conflict):
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
    """The resource does not match ``If-Match``, or matches ``If-None-Match`` of a write.

    For a write, ``current`` holds its current representation, and ``ETag`` the tag of it.

    Args:
        detail: as ``CatalogError``.
        current: the resource, ready to render, if it is known.
        etag: the resource's entity tag, if it is known.
    """

    slug = "precondition-failed"
    status = 412
    title = "The resource has changed in the meantime"

    def __init__(
        self,
        detail: str = "",
        *,
        current: Mapping[str, object] | None = None,
        etag: str | None = None,
    ) -> None:
        self.current = current
        super().__init__(
            detail,
            headers={} if etag is None else {"ETag": etag},
            members={} if current is None else {"current": current},
        )
