"""Errors in the OpenAPI document: their schema, and the responses of an operation."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from inspect import cleandoc
from typing import Any, Final

from pydantic import BaseModel, Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from catalog import errors
from catalog.errors import CatalogError, public_errors
from catalog.http.replies.problems import MEDIA_TYPE, problem

_REQUEST_ID = "0bd4b54dd1f84d4aa07ba9a0ee8e9b0a"

# Headers that a response of a status must have, with an example.
_OWED: Final = {
    401: ("WWW-Authenticate", "The scheme to use (RFC 6750).", "Bearer"),
    405: ("Allow", "The methods that the resource supports.", "GET, HEAD, OPTIONS"),
    412: ("ETag", "The tag of the current representation.", '"2-40bad32e89dea19f"'),
    429: ("Retry-After", "Seconds to wait before the next attempt.", "30"),
    503: ("Retry-After", "Seconds to wait before the next attempt.", "1"),
}

_CODES: dict[str, JsonValue] = {"enum": [*sorted(kind.slug for kind in public_errors())]}


class ProblemError(BaseModel):
    """One of the errors that a problem consists of."""

    message: str = Field(examples=["must not be blank."])
    pointer: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None, description="JSON pointer to a field (RFC 6901)."
    )
    parameter: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None, description="Name of a query parameter."
    )
    header: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None, description="Name of a header."
    )
    line: int | SkipJsonSchema[None] = Field(
        default_factory=lambda: None, description="Line of a bulk request."
    )
    code: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None, description="Error code of a line of a bulk request."
    )


class Problem(BaseModel):
    """Problem details of a refused request (RFC 9457)."""

    type: str = Field(description="A relative URI that explains the problem type.")
    title: str = Field(description="The problem type in words.")
    status: int = Field(description="The status of the response.")
    detail: str = Field(description="This occurrence of the problem, in words.")
    code: str = Field(
        description="A stable slug to branch on; later releases may add others.",
        json_schema_extra=_CODES,
    )
    request_id: str = Field(description="Id of the request in the service's log.")
    errors: list[ProblemError] | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="The individual errors: a `message`, and the `pointer` (RFC 6901), "
        "`parameter`, `header` or `line` that it refers to.",
    )
    current: dict[str, JsonValue] | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="The resource as it is now, if it did not match `If-Match`, or matched "
        "`If-None-Match`.",
    )


def problem_schemas() -> dict[str, Any]:
    """Return the schemas of problems, by name."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "Problem": schema}


def problem_responses(kinds: Iterable[type[CatalogError]]) -> dict[str, Any]:
    """Return the responses for errors, by status."""
    found: dict[int, list[type[CatalogError]]] = {}
    for kind in dict.fromkeys(kinds):
        found.setdefault(kind.status, []).append(kind)
    return {str(status): _response(status, found[status]) for status in found}


def implied_errors(operation: Mapping[str, Any]) -> Iterable[type[CatalogError]]:
    """Yield the errors that follow from an operation's parameters, body and security."""
    yield errors.InternalError
    yield from (errors.DatabaseUnavailable, errors.DatabaseBusy)
    # Any request may carry a body, even an unexpected one, and its bounds apply before the handler.
    yield from (errors.MalformedRequest, errors.RequestTimeout, errors.BodyTooLarge)
    yield from (errors.UriTooLong, errors.HeadersTooLarge)
    # For a content coding other than gzip.
    yield errors.UnsupportedMediaType
    # For unknown parameters, even of operations that take none.
    yield errors.InvalidRequest
    if operation.get("security"):
        yield from (errors.TokenMissing, errors.TokenInvalid)
        yield from (errors.TokenExpired, errors.WrongTokenKind, errors.SessionEnded)
    places = {parameter["in"] for parameter in operation["parameters"]}
    if any(parameter["name"] == "cursor" for parameter in operation["parameters"]):
        yield errors.InvalidCursor
    if "path" in places:
        yield errors.NotFound


def _response(status: int, kinds: list[type[CatalogError]]) -> dict[str, Any]:
    lines = [f"- `{kind.slug}`: {_first_line(kind)}" for kind in kinds]
    headers = {}
    if status in _OWED:
        name, description, example = _OWED[status]
        schema = {"type": "string", "examples": [example]}
        headers[name] = {"description": description, "schema": schema}
    return {
        "description": "\n".join([f"{HTTPStatus(status).phrase}.", "", *lines]),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": _example(kinds[0]),
            }
        },
        "headers": headers,
    }


def _example(kind: type[CatalogError]) -> dict[str, Any]:
    # The members are those of the class, so no error of its own has to be raised.
    error = CatalogError.__new__(kind)
    CatalogError.__init__(error)
    return problem(error, _REQUEST_ID)


def _first_line(kind: type[CatalogError]) -> str:
    # Docstrings quote code as in reStructuredText, the document as in Markdown.
    return cleandoc(kind.__doc__ or "").splitlines()[0].replace("``", "`")
