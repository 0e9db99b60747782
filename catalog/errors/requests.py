"""Refusals of a request for its own sake, whatever the state of the service."""

from catalog.errors.base import CatalogError


class MalformedRequest(CatalogError):
    """The request cannot be parsed: it is not UTF-8, not JSON, or not a cursor."""

    slug = "malformed"
    status = 400
    title = "The request is malformed"


class InvalidCursor(MalformedRequest):
    """The cursor was not made by this service, or belongs to another list, sort or filter."""

    slug = "cursor-invalid"
    title = "The cursor is not valid for this list"


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


class BodyTooLarge(CatalogError):
    """The body exceeds the size limit."""

    slug = "body-too-large"
    status = 413
    title = "The body is too large"


class UriTooLong(CatalogError):
    """The request line exceeds the size limit."""

    slug = "uri-too-long"
    status = 414
    title = "The request line is too long"


class UnsupportedMediaType(CatalogError):
    """The resource does not accept the body's media type."""

    slug = "unsupported-media-type"
    status = 415
    title = "The body's media type is not supported"


class HeadersTooLarge(CatalogError):
    """A header field, or all of them together, exceed the size limit."""

    slug = "headers-too-large"
    status = 431
    title = "The header fields are too large"


class InvalidRequest(CatalogError):
    """The request is well-formed, but fields or parameters are invalid; ``errors`` lists them."""

    slug = "invalid"
    status = 422
    title = "A field is not valid"


class IdempotencyKeyReused(InvalidRequest):
    """The ``Idempotency-Key`` was used for a request with other content."""

    slug = "idempotency-key-reused"
    title = "The key was used for another request"


class LinesInvalid(InvalidRequest):
    """Lines of a bulk import are invalid, so nothing was written."""

    slug = "lines-invalid"
    title = "Lines of the body are not valid"


class MethodNotImplemented(CatalogError):
    """The service does not know the method, or the body's transfer coding."""

    slug = "not-implemented"
    status = 501
    title = "The method or transfer coding is not implemented"


class VersionNotSupported(CatalogError):
    """The service does not speak this version of HTTP on this connection."""

    slug = "version-not-supported"
    status = 505
    title = "The version of HTTP is not supported"
