"""Problem details (RFC 9457): the rendering of every error, including the framework's own."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from pydantic import ValidationError
from quart import Quart, Response, request
from quart_schema import RequestSchemaValidationError
from quart_schema.validation import QuerystringValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from catalog import errors
from catalog.errors import CatalogError, FieldError, InvalidRequest
from catalog.http.context import request_id
from catalog.observability.debounce import Debounce
from catalog.observability.logs import logger

MEDIA_TYPE = "application/problem+json"

MAX_FIELD_ERRORS = 100
"""Errors reported at once; a body of unknown fields would get a response many times its size."""

_log = logger(__name__)
_refusals = Debounce()

_CAUSE_CHARACTERS = 200
"""Prefix of a cause that tells kinds of refusals apart; the rest may differ each time."""

# Errors that the framework raises itself; its other HTTP errors become MalformedRequest.
_BY_STATUS: Mapping[int, type[CatalogError]] = {
    kind.status: kind
    for kind in (
        errors.MalformedRequest,
        errors.NotFound,
        errors.MethodNotAllowed,
        errors.NotAcceptable,
        errors.RequestTimeout,
        errors.BodyTooLarge,
        errors.UnsupportedMediaType,
        errors.InternalError,
    )
}


def problem(error: CatalogError, identifier: str) -> dict[str, Any]:
    """Return the members of an error's problem details (RFC 9457, section 3.1, and extensions)."""
    members: dict[str, Any] = {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.slug,
        "request_id": identifier,
    }
    if error.errors:
        members["errors"] = [{e.place: e.name, "message": e.message} for e in error.errors]
    return {**members, **error.members}


def body_of(error: CatalogError, identifier: str) -> bytes:
    """Serialize an error's problem details."""
    return orjson.dumps(problem(error, identifier))


def answer(error: CatalogError) -> Response:
    """Return the problem response for an error."""
    return Response(
        body_of(error, request_id()),
        status=error.status,
        headers=error.headers,
        content_type=MEDIA_TYPE,
    )


def handle_errors(app: Quart) -> None:
    """Register handlers for every exception that can be raised while a request is handled."""
    app.register_error_handler(RequestSchemaValidationError, _refuse_schema)
    app.register_error_handler(HTTPException, _refuse_http)
    app.register_error_handler(Exception, _refuse)


def to_problem(error: Exception) -> CatalogError:
    """Convert an exception to an error for the client, and log the cause for operators."""
    if not isinstance(error, CatalogError):
        _log.error("request_failed", exc_info=error)
        return errors.InternalError()
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        cause = repr(error.__cause__) if error.__cause__ else error.detail
        left_out = _refusals.admit((error.slug, cause[:_CAUSE_CHARACTERS]))
        if left_out is not None:
            _log.warning("request_refused", code=error.slug, cause=cause, left_out=left_out)
    return error


async def _refuse(error: Exception) -> Response:
    return answer(to_problem(error))


async def _refuse_schema(error: RequestSchemaValidationError) -> Response:
    in_query = isinstance(error, QuerystringValidationError)
    cause = error.validation_error
    if not isinstance(cause, ValidationError):
        return answer(InvalidRequest())
    return answer(InvalidRequest(errors=field_errors(cause, in_query=in_query)))


async def _refuse_http(error: HTTPException) -> Response:
    if isinstance(error, MethodNotAllowed):
        return _refuse_method(error)
    kind = _BY_STATUS.get(error.code or 500, errors.MalformedRequest)
    return answer(kind())


def _refuse_method(error: MethodNotAllowed) -> Response:
    allowed = {*(error.valid_methods or ()), "OPTIONS"}
    headers = {"Allow": ", ".join(sorted(allowed))}
    if request.method == "OPTIONS":
        # RFC 9110, section 9.3.7: answered here, so that no view has to implement OPTIONS.
        response = Response(b"", status=HTTPStatus.NO_CONTENT, headers=headers)
        del response.headers["Content-Type"]
        return response
    return answer(errors.MethodNotAllowed(headers=headers))


def field_errors(error: ValidationError, *, in_query: bool = False) -> Sequence[FieldError]:
    """Convert pydantic's errors, without the invalid values: one of them may be a password."""
    found = []
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    for fault in faults[:MAX_FIELD_ERRORS]:
        if fault["type"] == "extra_forbidden":
            message = "This field is unknown."
        else:
            message = fault["msg"].removeprefix("Value error, ").rstrip(".") + "."
            message = message[0].upper() + message[1:]
        if in_query:
            name = str(fault["loc"][0]) if fault["loc"] else ""
            found.append(FieldError("parameter", name[:200], message))
        else:
            found.append(FieldError("pointer", json_pointer(fault["loc"])[:200], message))
    return found


def json_pointer(location: Sequence[int | str]) -> str:
    """Return the JSON pointer of a location (RFC 6901)."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in location)
