"""quart-schema's document, corrected where it is incomplete or invalid."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from quart_schema import OpenAPIProvider
from quart_schema.typing import Model
from quart_schema.validation import DataSource
from werkzeug.routing import BaseConverter, Rule

from catalog import errors
from catalog.db.columns import MAX_ID
from catalog.http.context import app_state
from catalog.http.limits import HEADERS as LIMIT_HEADERS
from catalog.http.limits import limit_of, rate_of
from catalog.http.openapi.examples import example_of, text_example
from catalog.http.openapi.marks import Marks, marks_of
from catalog.http.openapi.problems import implied_errors, problem_responses, problem_schemas
from catalog.http.replies.negotiation import JSON, NDJSON, offered_by
from catalog.http.routing import IdConverter
from catalog.http.validation import MERGE_PATCH

# OpenAPI cannot describe the structure of media types other than JSON.
_TEXT: Final = {"schema": {"type": "string"}}

# Orval takes an operation that offers exactly "application/x-ndjson" for one that has nothing else,
# and its clients do not parse the JSON of lists.
_OFFERS: Final = {NDJSON: f"{NDJSON}; charset=utf-8"}

_ETAG: Final = {
    "ETag": {
        "description": "For `If-Match` and `If-None-Match`.",
        "schema": {"type": "string", "examples": ['"1-3f8a5c0d6e9b2174"']},
    }
}

_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "description": "Entity tags; unless one of them is current, the response is 412.",
    "schema": {"type": "string"},
}

_IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "description": "Entity tags that the client has; if one of them is current, the response is "
    "304 without a body.",
    "schema": {"type": "string"},
}

HEADERS: Final = {
    "RequestId": {
        "description": "Id of the request: the client's, if it sent a valid one.",
        "schema": {
            "type": "string",
            "pattern": "^[A-Za-z0-9._-]{1,128}$",
            "examples": ["0bd4b54dd1f84d4aa07ba9a0ee8e9b0a"],
        },
    },
    "RateLimitPolicy": {
        "description": "Requests (`q`) that one client address may send in a window of "
        "`w` seconds. Absent if the request was refused before it was counted.",
        "schema": {"type": "string", "examples": ['"login";q=600;w=60']},
    },
    "RateLimit": {
        "description": "Requests that remain (`r`), and seconds until more are available (`t`).",
        "schema": {"type": "string", "examples": ['"login";r=599;t=42']},
    },
}
"""Headers of all responses, or of rate-limited ones."""


class Provider(OpenAPIProvider):
    """quart-schema's provider, which documents successes only.

    Adds to every operation its errors, the headers of every response, examples of its bodies, and
    names that are stable between builds.
    """

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
            # The first account is the administrator's, so 2 is that of the other examples.
            example = 2 if name == "user_id" else 1
            parameter["description"] = f"Id of the {name.removesuffix('_id')}."
            parameter["schema"] = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
            # Not one of the schema's: Swagger UI fills in this one only.
            parameter["example"] = example
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
                kept = {name: schema[name] for name in ("examples",) if name in schema}
                parameter["schema"] = {**choices[0], **kept}
            # An empty value is an absent parameter.
            parameter["allowEmptyValue"] = True
            if parameter["schema"].get("type") == "array":
                # Repeated parameters are accepted too, but a URL with commas is shorter.
                parameter |= {"style": "form", "explode": False}
        return parameters, definitions

    def build_headers_parameters(
        self, model: type[Model]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the header parameters, named as they are usually written."""
        parameters, definitions = super().build_headers_parameters(model)
        for parameter in parameters:
            parameter["name"] = _header_name(parameter["name"])
        return parameters, definitions

    def build_request_body(
        self, model: type[Model], source: DataSource
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a request body, required and with a named schema."""
        body, definitions = super().build_request_body(model, source)
        definitions |= _named(body)
        body = {"description": model.__doc__, **body, "required": True}
        return _with_example(body, definitions), definitions

    def build_response_object(
        self, model: type[Model], headers_model: type[Model] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a success response, with its headers where the specification requires them."""
        response, definitions = super().build_response_object(model, headers_model)
        headers = response["content"].pop("headers", {})
        definitions |= _named(response)
        response["headers"] = {_header_name(name): _header(each) for name, each in headers.items()}
        return _with_example(response, definitions), definitions

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a rule's operations with all their responses."""
        paths, components = super().build_paths(rule)
        view = self._app.view_functions[rule.endpoint]
        marks = marks_of(view)
        implied: list[type[errors.CatalogError]] = []
        if len(offered_by(view)) > 1:
            implied.append(errors.NotAcceptable)
        if self._is_limited(view):
            implied.append(errors.TooManyRequests)
        if marks.revalidates:
            implied.append(errors.PreconditionFailed)
        for operations in paths.values():
            for method, operation in operations.items():
                operation = _declared(operation, marks)
                if method == "patch":
                    content = operation["requestBody"]["content"]
                    content[MERGE_PATCH] = content[JSON]
                operation = _completed(operation, [*marks.refuses, *implied])
                for media_type in offered_by(view)[1:]:
                    content = operation["responses"]["200"]["content"]
                    _offer(content, media_type, name=_OFFERS.get(media_type, media_type))
                operations[method] = operation
        return paths, components

    def _is_limited(self, view: object) -> bool:
        """Return whether the settings turn on the limit that a view declares."""
        settings = app_state(self._app).settings  # type: ignore[arg-type]  # a proxy of the app
        policy = limit_of(view)
        return policy is not None and rate_of(settings, policy) is not None

    def schema(self) -> dict[str, Any]:
        """Return the whole document; its server is where it is."""
        document: dict[str, Any] = super().schema()
        document["paths"] = dict(document["paths"])
        components = document["components"]
        components["schemas"].update(problem_schemas())
        limited = any(self._is_limited(view) for view in self._app.view_functions.values())
        unused = () if limited else ("RateLimitPolicy", "RateLimit")
        components["headers"] = {name: HEADERS[name] for name in HEADERS if name not in unused}
        # The library converts the outermost object only.
        for name in ("contact", "license"):
            document["info"][name] = document["info"][name].schema()
        document["servers"] = [{"url": "/"}]
        return document


def _declared(operation: dict[str, Any], marks: Marks) -> dict[str, Any]:
    """Return an operation with what its view declares."""
    operation = {
        **operation,
        "description": operation.get("description", "").strip(),
        # An empty list says that no token is needed; without it, tools complain or ask for one.
        "security": operation.get("security", []),
        "tags": sorted(operation.get("tags", [])),
    }
    if marks.revalidates:
        operation = _revalidated(operation)
    if "requestBody" in operation:
        content = dict(operation["requestBody"]["content"])
        for media_type in marks.also_takes:
            _offer(content, media_type)
        body = {**operation["requestBody"], "content": content, "required": not marks.may_lack_body}
        operation["requestBody"] = body
    if marks.answers_nothing:
        operation["responses"] = {"204": {"description": "Done."}}
    return operation


def _completed(operation: dict[str, Any], own: list[type[errors.CatalogError]]) -> dict[str, Any]:
    """Return an operation with its errors and common headers added."""
    responses = {str(status): dict(each) for status, each in operation["responses"].items()}
    problems = problem_responses([*own, *implied_errors(operation)])
    responses = {**problems, **responses}
    shared = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
    if errors.TooManyRequests in own:
        for name in LIMIT_HEADERS:
            shared[name] = {"$ref": f"#/components/headers/{name.replace('-', '')}"}
    for response in responses.values():
        response["headers"] = {**response.get("headers", {}), **shared}
    return {**operation, "responses": dict(sorted(responses.items()))}


def _revalidated(operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation with entity tags and 304 (RFC 9110, section 15.4.5)."""
    responses = {
        status: {**each, "headers": {**each.get("headers", {}), **_ETAG}}
        for status, each in operation["responses"].items()
    }
    unchanged = {
        "description": "Not Modified: the entity tag matches `If-None-Match`.",
        "headers": _ETAG,
    }
    return {
        **operation,
        "parameters": [*operation["parameters"], _IF_MATCH, _IF_NONE_MATCH],
        "responses": {**responses, "304": unchanged},
    }


def _named(holder: dict[str, Any]) -> dict[str, Any]:
    """Move a body's schemas to the components, so that generated clients can name them."""
    moved = {}
    for media in holder["content"].values():
        schema = media["schema"]
        if "title" in schema:
            moved[schema["title"]] = schema
            media["schema"] = {"$ref": f"#/components/schemas/{schema['title']}"}
    return moved


def _with_example(holder: dict[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body with an example of its JSON."""
    media = holder["content"][JSON]
    example = example_of(media["schema"], schemas)
    return {**holder, "content": {JSON: {**media, "example": example}}}


def _offer(content: dict[str, Any], media_type: str, *, name: str = "") -> None:
    """Add a media type to a body, by its own or another name, with the example of its JSON."""
    example = text_example(media_type, content[JSON]["example"])
    content[name or media_type] = {**_TEXT, "example": example}


def _header(header: dict[str, Any]) -> dict[str, Any]:
    schema = dict(header["schema"])
    described = {"description": schema.pop("description")} if "description" in schema else {}
    return {**described, "schema": schema}


def _header_name(name: str) -> str:
    return {"etag": "ETag", "last-event-id": "Last-Event-ID"}.get(name.lower(), name.title())
