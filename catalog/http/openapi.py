"""The OpenAPI 3.1 document: quart-schema's output, completed.

The library documents successes only. This module adds to every operation its errors, the headers
of every response, and names that are stable between builds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from inspect import cleandoc
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field
from quart import Quart
from quart_schema import Info, OpenAPIProvider, QuartSchema, Tag
from quart_schema.openapi import HttpSecurityScheme
from quart_schema.typing import Model
from quart_schema.validation import DataSource
from werkzeug.routing import BaseConverter, Rule

from catalog import __version__, errors
from catalog.db.columns import MAX_ID
from catalog.errors import CatalogError
from catalog.http.context import running
from catalog.http.limits import HEADERS as LIMIT_HEADERS
from catalog.http.limits import limit_of, rate_of
from catalog.http.replies.negotiation import offered_by
from catalog.http.replies.problems import MEDIA_TYPE
from catalog.http.routing import IdConverter

F = TypeVar("F", bound=Callable[..., Any])

_REFUSES_ATTRIBUTE = "catalog_refuses"
_REVALIDATES_ATTRIBUTE = "catalog_revalidates"
_EMPTY_ATTRIBUTE = "catalog_empty"
_ALSO_TAKES_ATTRIBUTE = "catalog_also_takes"
_OPTIONAL_BODY_ATTRIBUTE = "catalog_optional_body"

# OpenAPI cannot describe the structure of media types other than JSON.
_TEXT: Final = {"schema": {"type": "string"}}

_DESCRIPTION = """
Users and products over HTTP, with JWT sign-in.

Bodies are JSON in UTF-8. Every error is `application/problem+json` (RFC 9457) with a stable
`code`. Clients must ignore fields that they do not know.
"""


class Problem(BaseModel):
    """Problem details of a refused request (RFC 9457)."""

    type: str = Field(description="A relative URI that explains the problem type.")
    title: str
    status: int
    detail: str
    code: str = Field(description="A stable slug to branch on.")
    request_id: str = Field(description="Id of the request in the service's log.")
    errors: list[dict[str, str | int]] = Field(
        default=[],
        description="The individual errors: a `message`, and the `pointer` (RFC 6901), "
        "`parameter`, `header` or `line` that it refers to.",
    )


def refuses(*kinds: type[CatalogError]) -> Callable[[F], F]:
    """Document a handler's own errors; those that every handler shares are implied."""

    def decorator(view: F) -> F:
        setattr(view, _REFUSES_ATTRIBUTE, kinds)
        return view

    return decorator


def revalidates(view: F) -> F:
    """Document that a handler's responses have an ``ETag`` and can be 304."""
    setattr(view, _REVALIDATES_ATTRIBUTE, True)
    return view


def also_takes(*media_types: str) -> Callable[[F], F]:
    """Document that a handler accepts bodies of these media types besides JSON."""

    def decorator(view: F) -> F:
        setattr(view, _ALSO_TAKES_ATTRIBUTE, media_types)
        return view

    return decorator


def may_lack_body(view: F) -> F:
    """Document that a handler's request body is optional."""
    setattr(view, _OPTIONAL_BODY_ATTRIBUTE, True)
    return view


def answers_nothing(view: F) -> F:
    """Document that a handler responds with 204, without a body."""
    setattr(view, _EMPTY_ATTRIBUTE, True)
    return view


class Provider(OpenAPIProvider):
    """quart-schema's provider, corrected where its document is incomplete or invalid."""

    def operation_id(self, method: str, path: str, func: Callable[..., Any]) -> str | None:  # noqa: ARG002 (the library's signature)
        """Return the handler's name, which is verb and noun already."""
        return func.__name__

    def generate_rules(self) -> Iterable[Rule]:
        """Return the rules in an order that does not depend on imports."""
        return sorted(super().generate_rules(), key=lambda rule: (rule.rule, rule.endpoint))

    def generate_methods(self, rule: Rule) -> Iterable[str]:
        """Return the methods in a stable order."""
        return sorted(super().generate_methods(rule))

    def build_path_parameter(self, name: str, converter: BaseConverter) -> dict[str, Any]:
        """Return a path parameter, with the range of an id."""
        parameter: dict[str, Any] = super().build_path_parameter(name, converter)
        if isinstance(converter, IdConverter):
            parameter["schema"] = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
        return parameter

    def build_querystring_parameters(
        self, model: type[Model]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the query parameters; an optional one may be absent, never null."""
        parameters, definitions = super().build_querystring_parameters(model)
        for parameter in parameters:
            schema = parameter["schema"]
            choices = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
            if len(choices) == 1:
                parameter["schema"] = choices[0]
            if parameter["schema"].get("type") == "array":
                # The shorter of the two forms that are accepted.
                parameter["explode"] = False
        return parameters, definitions

    def build_request_body(
        self, model: type[Model], source: DataSource
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a request body, required and with a named schema."""
        body, definitions = super().build_request_body(model, source)
        return {**body, "required": True}, definitions | _named(body)

    def build_response_object(
        self, model: type[Model], headers_model: type[Model] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a success response, with its headers where the specification requires them."""
        response, definitions = super().build_response_object(model, headers_model)
        headers = response["content"].pop("headers", {})
        response["headers"] = {_title(name): value for name, value in headers.items()}
        return response, definitions | _named(response)

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a rule's operations with all their responses."""
        paths, components = super().build_paths(rule)
        view = self._app.view_functions[rule.endpoint]
        for operations in paths.values():
            for method, operation in operations.items():
                own = getattr(view, _REFUSES_ATTRIBUTE, ())
                negotiated = (errors.NotAcceptable,) if rule.rule.startswith("/api/") else ()
                limited = (errors.TooManyRequests,) if self._is_limited(view) else ()
                if getattr(view, _REVALIDATES_ATTRIBUTE, False):
                    operation = _revalidated(operation)
                if getattr(view, _OPTIONAL_BODY_ATTRIBUTE, False):
                    body = {**operation["requestBody"], "required": False}
                    operation = {**operation, "requestBody": body}
                for media_type in getattr(view, _ALSO_TAKES_ATTRIBUTE, ()):
                    operation["requestBody"]["content"][media_type] = _TEXT
                if getattr(view, _EMPTY_ATTRIBUTE, False):
                    operation = {**operation, "responses": {"204": {"description": "Done."}}}
                operation = _completed(operation, [*own, *negotiated, *limited])
                for media_type in offered_by(view)[1:]:
                    operation["responses"]["200"]["content"][media_type] = _TEXT
                operations[method] = operation
        return paths, components

    def _is_limited(self, view: object) -> bool:
        """Return whether the settings turn on the limit that a view declares."""
        settings = running(self._app).settings  # type: ignore[arg-type]  # a proxy of the app
        policy = limit_of(view)
        return policy is not None and rate_of(settings, policy) is not None

    def schema(self) -> dict[str, Any]:
        """Return the whole document."""
        document: dict[str, Any] = super().schema()
        document["paths"] = dict(document["paths"])
        components = document["components"]
        components["schemas"]["Problem"] = Problem.model_json_schema()
        components["headers"] = {
            "RequestId": {
                "description": "Id of the request: the client's, if it sent a valid one.",
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
            },
            "RateLimitPolicy": {
                "description": "Requests (`q`) that one client address may send in a window of "
                "`w` seconds. Absent if the request was refused before it was counted.",
                "schema": {"type": "string", "examples": ['"login";q=600;w=60']},
            },
            "RateLimit": {
                "description": "Requests that remain (`r`), and seconds until more are "
                "available (`t`).",
                "schema": {"type": "string", "examples": ['"login";r=599;t=42']},
            },
        }
        return document


def _completed(operation: dict[str, Any], own: Sequence[type[CatalogError]]) -> dict[str, Any]:
    """Return an operation with its errors added and its tags sorted."""
    operation = {**operation, "tags": sorted(operation.get("tags", []))}
    responses = {str(status): dict(each) for status, each in operation["responses"].items()}
    for status, kinds in _by_status([*own, *_implied(operation)]).items():
        responses.setdefault(str(status), _problem_response(status, kinds))
    shared = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
    if errors.TooManyRequests in own:
        for name in LIMIT_HEADERS:
            shared[name] = {"$ref": f"#/components/headers/{name.replace('-', '')}"}
    for response in responses.values():
        response["headers"] = {**response.get("headers", {}), **shared}
    operation["responses"] = dict(sorted(responses.items()))
    return operation


def _revalidated(operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation with entity tags and 304 (RFC 9110, section 15.4.5)."""
    tag = {"ETag": {"schema": {"type": "string"}}}
    responses = {
        status: {**each, "headers": {**each.get("headers", {}), **tag}}
        for status, each in operation["responses"].items()
    }
    unchanged = {
        "description": "Not Modified: the entity tag matches `If-None-Match`.",
        "headers": tag,
    }
    return {**operation, "responses": {**responses, "304": unchanged}}


def _implied(operation: Mapping[str, Any]) -> Iterable[type[CatalogError]]:
    """Yield the errors that follow from an operation's parameters, body and security."""
    yield errors.InternalError
    yield from (errors.DatabaseUnavailable, errors.DatabaseBusy)
    # Any request may carry a body, even an unexpected one, and its bounds apply before the handler.
    yield from (errors.MalformedRequest, errors.RequestTimeout, errors.BodyTooLarge)
    # For unknown parameters, even of operations that take none.
    yield errors.InvalidRequest
    if operation.get("security"):
        yield from (errors.TokenMissing, errors.TokenInvalid)
        yield from (errors.TokenExpired, errors.WrongTokenKind, errors.SessionEnded)
    if "requestBody" in operation:
        yield errors.UnsupportedMediaType
    places = {parameter["in"] for parameter in operation["parameters"]}
    if any(parameter["name"] == "cursor" for parameter in operation["parameters"]):
        yield errors.InvalidCursor
    if "path" in places:
        yield errors.NotFound


def _named(holder: dict[str, Any]) -> dict[str, Any]:
    """Move a body's schemas to the components, so that generated clients can name them."""
    moved = {}
    for media in holder["content"].values():
        schema = media["schema"]
        if "title" in schema:
            moved[schema["title"]] = schema
            media["schema"] = {"$ref": f"#/components/schemas/{schema['title']}"}
    return moved


def _by_status(kinds: Iterable[type[CatalogError]]) -> dict[int, list[type[CatalogError]]]:
    found: dict[int, list[type[CatalogError]]] = {}
    for kind in dict.fromkeys(kinds):
        found.setdefault(kind.status, []).append(kind)
    return found


# Headers that a response of a status must have.
_OWED = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After"}


def _problem_response(status: int, kinds: Iterable[type[CatalogError]]) -> dict[str, Any]:
    lines = [f"- `{kind.slug}`: {_first_line(kind)}" for kind in kinds]
    headers = {_OWED[status]: {"schema": {"type": "string"}}} if status in _OWED else {}
    return {
        "description": "\n".join([f"{HTTPStatus(status).phrase}.", "", *lines]),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        "headers": headers,
    }


def _first_line(kind: type[CatalogError]) -> str:
    # Docstrings quote code as in reStructuredText, the document as in Markdown.
    return cleandoc(kind.__doc__ or "").splitlines()[0].replace("``", "`")


def _title(name: str) -> str:
    return {"etag": "ETag"}.get(name.lower(), name.title())


def configure_openapi(app: Quart, *, tags: Iterable[Tag], bearer: str) -> None:
    """Collect the app's operations; quart-schema's routes are off, the service has its own.

    Args:
        app: the app, before its routes are added.
        tags: the groups of operations, in display order.
        bearer: the name under which guards refer to the security scheme.
    """
    QuartSchema(
        app,
        openapi_path=None,
        info=Info(title="catalog", version=__version__, description=cleandoc(_DESCRIPTION)),
        tags=list(tags),
        security_schemes={bearer: HttpSecurityScheme(scheme="bearer", bearer_format="JWT")},
        openapi_provider_class=Provider,
        conversion_preference="pydantic",
    )


def document_of(app: Quart) -> dict[str, Any]:
    """Return an app's OpenAPI document, built once: building takes milliseconds."""
    built: dict[str, Any] | None = app.extensions.get("catalog.openapi")
    if built is None:
        built = app.extensions["QUART_SCHEMA"].openapi_provider.schema()
        app.extensions["catalog.openapi"] = built
    return built
