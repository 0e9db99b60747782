"""Problem details (RFC 9457): the rendering of every error, including the framework's own."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from pydantic import ValidationError
from quart import Quart
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from catalog import errors
from catalog.errors import CatalogError, FieldError
from catalog.errors.wording import broken_rule
from catalog.http.replies.problem_page import problem_page, wants_page
from catalog.http.replies.reply import Reply, no_content
from catalog.http.request import current_request
from catalog.observability.log_throttle import LogThrottle
from catalog.observability.logs import logger

MEDIA_TYPE = "application/problem+json"

MAX_FIELD_ERRORS = 100
"""Errors reported at once; a body of unknown fields would get a response many times its size."""

_log = logger(__name__)
_refusals = LogThrottle()

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
        errors.UriTooLong,
        errors.UnsupportedMediaType,
        errors.HeadersTooLarge,
        errors.InternalError,
        errors.MethodNotImplemented,
        errors.VersionNotSupported,
    )
}


def problem(error: CatalogError, request_id: str, prefix: str = "") -> dict[str, Any]:
    """Return the members of an error's problem details (RFC 9457, section 3.1, and extensions)."""
    members: dict[str, Any] = {
        "type": f"{prefix}/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.slug,
        "request_id": request_id,
    }
    if error.errors:
        members["errors"] = [{e.place: e.name, "message": e.message} for e in error.errors]
    return {**members, **error.members}


def problem_reply(error: CatalogError) -> Reply:
    """Return the response for an error of the current request: a problem, or a page of it."""
    request = current_request()
    if wants_page(request):
        return problem_page(error, request)
    body = orjson.dumps(problem(error, request.request_id, request.prefix))
    return Reply(body, status=error.status, headers=error.headers, media_type=MEDIA_TYPE)


def handle_errors(app: Quart) -> None:
    """Register handlers for every exception that can be raised while a request is handled."""
    # ``CatalogApp`` converts replies, which the framework's types do not know.
    refuse_http: Any = _refuse_http
    refuse: Any = _refuse
    app.register_error_handler(HTTPException, refuse_http)
    app.register_error_handler(Exception, refuse)


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


async def _refuse(error: Exception) -> Reply:
    return problem_reply(to_problem(error))


async def _refuse_http(error: HTTPException) -> Reply:
    if isinstance(error, MethodNotAllowed):
        return _refuse_method(error)
    kind = _BY_STATUS.get(error.code or 500, errors.MalformedRequest)
    return problem_reply(kind())


def _refuse_method(error: MethodNotAllowed) -> Reply:
    allowed = {*(error.valid_methods or ()), "OPTIONS"}
    headers = {"Allow": ", ".join(sorted(allowed))}
    if current_request().method == "OPTIONS":
        # RFC 9110, section 9.3.7: answered here, so that no view has to implement OPTIONS.
        return no_content(headers)
    return problem_reply(errors.MethodNotAllowed(headers=headers))


def field_errors(error: ValidationError, *, in_query: bool = False) -> Sequence[FieldError]:
    """Convert pydantic's errors, without the invalid values: one of them may be a password."""
    found = []
    for fault in error.errors(include_url=False, include_input=False)[:MAX_FIELD_ERRORS]:
        rule, location = broken_rule(fault), fault["loc"]
        if in_query:
            if fault["type"] == "extra_forbidden":
                rule = "is not a known parameter"
            for item in (each for each in location[1:] if isinstance(each, int)):
                rule = f"has an item (number {item + 1}) that {rule}"
            name = str(location[0]) if location else "The query"
            found.append(FieldError("parameter", name[:200], rule))
        else:
            found.append(FieldError("pointer", json_pointer(location)[:200], rule))
    return found


def json_pointer(location: Sequence[int | str]) -> str:
    """Return the JSON pointer of a location (RFC 6901)."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in location)
