"""Decorators that validate a request against a schema, and document the schema.

quart-schema reads the documentation from the view. Its own decorators validate too, but they need
the framework's request.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import lru_cache, wraps
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from quart import Quart, request
from quart_schema import document_querystring, document_request
from quart_schema.validation import QUART_SCHEMA_QUERYSTRING_ATTRIBUTE
from werkzeug.datastructures import MultiDict

from catalog.errors import FieldError, InvalidRequest, UnsupportedMediaType
from catalog.http.replies.negotiation import JSON
from catalog.http.replies.problems import field_errors
from catalog.http.request import Request, current_request, parse_query
from catalog.http.schemas import QueryParameters
from catalog.http.strict_json import parse_json

Q = TypeVar("Q", bound=QueryParameters)
T = TypeVar("T")

View = Callable[..., Awaitable[T]]

MERGE_PATCH = "application/merge-patch+json"
"""Media type of a PATCH besides JSON (RFC 7396)."""

_UTF8 = {"utf-8", "utf8", "us-ascii"}

_KNOWN_QUERIES = 1024
_MAX_KNOWN_BYTES = 512
"""Queries that each view caches, and their length: many clients ask for the same page."""


def query_parameters(schema: type[QueryParameters]) -> Callable[[View[T]], View[T]]:
    """Pass the validated query as ``query_args``.

    Raises:
        MalformedRequest: the query is not UTF-8.
        InvalidRequest: a parameter is unknown or not valid.
    """

    def decorator(view: View[T]) -> View[T]:
        @lru_cache(_KNOWN_QUERIES)
        def known(query_string: bytes) -> QueryParameters:
            return validated_query(schema, parse_query(query_string))

        @wraps(view)
        async def validated(*args: Any, **kwargs: Any) -> T:
            here = current_request()
            if len(here.query_string) <= _MAX_KNOWN_BYTES:
                query = known(here.query_string)
            else:
                query = validated_query(schema, here.query)
            return await view(*args, query_args=query, **kwargs)

        return document_querystring(schema)(validated)

    return decorator


def takes_query(view: Callable[..., Any]) -> bool:
    """Return whether a view documents query parameters; those of all others are refused."""
    return hasattr(view, QUART_SCHEMA_QUERYSTRING_ATTRIBUTE)


def configure_validation(app: Quart) -> None:
    """Refuse every parameter of views that take none, before the view runs."""
    app.before_request(_only_known_parameters)


async def _only_known_parameters() -> None:
    here = current_request()
    rule = request.url_rule
    if not here.query_string or rule is None or not rule.rule.startswith("/api/"):
        return
    if not takes_query(here.app.view_functions[rule.endpoint]):
        validated_query(QueryParameters, here.query)


def validated_query(schema: type[Q], query: MultiDict[str, str]) -> Q:
    """Validate query parameters against a schema.

    An empty value is an absent parameter. A list may be repeated, also as ``name[]``, which some
    clients make of it.

    Raises:
        InvalidRequest: a parameter is unknown, not valid, or repeated without being a list.
    """
    given: dict[str, str | list[str]] = {}
    repeated = []
    known = {field.alias or name for name, field in schema.model_fields.items()}
    for name, values in query.lists():
        listed = name.removesuffix("[]")
        sent = [value for value in values if value]
        if listed in schema.lists:
            if sent:
                given[listed] = [*given.get(listed, ()), *sent]
        elif len(sent) > 1 and name in known:
            repeated.append(FieldError("parameter", name, "may be given only once"))
        elif sent:
            given[name] = sent[0]
        elif name not in known:
            # Reported all the same: it may be a misspelled parameter.
            given[name] = ""
    if repeated:
        raise InvalidRequest(errors=repeated)
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(errors=field_errors(error, in_query=True)) from None


def json_body(
    schema: type[BaseModel], *, optional: bool = False, besides: Collection[str] = ()
) -> Callable[[View[T]], View[T]]:
    """Pass the validated JSON body as ``data``.

    Args:
        schema: the schema.
        optional: whether an absent body stands for an empty object.
        besides: other media types that the route accepts, for many objects in one body.

    Raises:
        UnsupportedMediaType: the body is not declared as JSON in UTF-8.
        MalformedRequest: the body is not JSON that every parser reads alike, or cannot be decoded.
        BodyTooLarge: the body decodes to more than the limit.
        InvalidRequest: a field is not valid.
    """

    def decorator(view: View[T]) -> View[T]:
        @wraps(view)
        async def validated(*args: Any, **kwargs: Any) -> T:
            here = current_request()
            if not optional:
                # Refuses other media types before the client sends the body.
                _require_json(here, besides)
            await here.receive_body()
            if optional and not here.body:
                value = {}
            else:
                if optional:
                    _require_json(here, besides)
                value = parse_json(await here.decoded_body())
            if not isinstance(value, dict):
                raise InvalidRequest(errors=[FieldError("pointer", "", _no_object(besides))])
            try:
                data = schema.model_validate(value)
            except ValidationError as error:
                raise InvalidRequest(errors=field_errors(error)) from None
            return await view(*args, data=data, **kwargs)

        return document_request(schema)(validated)

    return decorator


def _require_json(here: Request, besides: Collection[str]) -> None:
    """Check that a body is declared as JSON.

    Raises:
        UnsupportedMediaType: the body is not declared as JSON in UTF-8.
    """
    media_type, parameters = here.content_type
    is_json = media_type == JSON or (media_type == MERGE_PATCH and here.method == "PATCH")
    if is_json and is_utf8(parameters):
        return
    taken = (JSON, MERGE_PATCH) if here.method == "PATCH" else (JSON, *besides)
    rule = "JSON must be in UTF-8." if is_json else f"The body must be {in_words(taken)}."
    raise UnsupportedMediaType(rule, headers=accepted(here.method, taken))


def accepted(method: str, media_types: Iterable[str]) -> dict[str, str]:
    """Return the header that names the media types of bodies that a route accepts, if there is one.

    It is for 415 (RFC 9110, section 15.5.16, and RFC 5789, section 3.1).
    """
    field = {"PATCH": "Accept-Patch", "POST": "Accept-Post"}.get(method)
    return {field: ", ".join(media_types)} if field else {}


def is_utf8(parameters: Mapping[str, str]) -> bool:
    """Return whether the parameters of a media type declare UTF-8, its subset, or no charset."""
    return parameters.get("charset", "utf-8").lower() in _UTF8


def _no_object(besides: Collection[str]) -> str:
    rule = "must be a JSON object"
    if besides:
        rule += f"; several at once are sent one per line, as {next(iter(besides))}"
    return rule


def in_words(alternatives: Iterable[str]) -> str:
    """Return alternatives as a phrase: ``a, b or c``."""
    *others, last = alternatives
    return f"{', '.join(others)} or {last}" if others else last
