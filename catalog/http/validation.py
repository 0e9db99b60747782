"""Decorators that validate a request against a schema, and document the schema.

quart-schema reads the documentation from the view. Its own decorators validate too, but they need
the framework's request.
"""

from collections.abc import Awaitable, Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from quart_schema import document_querystring, document_request
from werkzeug.datastructures import MultiDict

from catalog.errors import InvalidRequest, UnsupportedMediaType
from catalog.http.replies.negotiation import JSON
from catalog.http.replies.problems import field_errors
from catalog.http.request import Request, current_request, parse_query
from catalog.http.strict_json import parse_json

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

View = Callable[..., Awaitable[T]]

_KNOWN_QUERIES = 1024
_MAX_KNOWN_BYTES = 512
"""Queries that each view caches, and their length: many clients ask for the same page."""


def query_parameters(schema: type[BaseModel]) -> Callable[[View[T]], View[T]]:
    """Pass the validated query as ``query_args``.

    Raises:
        InvalidRequest: a parameter is unknown or not valid.
    """

    def decorator(view: View[T]) -> View[T]:
        @lru_cache(_KNOWN_QUERIES)
        def known(query_string: bytes) -> BaseModel:
            return validated_query(schema, parse_query(query_string))

        @wraps(view)
        async def validated(*args: Any, **kwargs: Any) -> T:
            request = current_request()
            if len(request.query_string) <= _MAX_KNOWN_BYTES:
                query = known(request.query_string)
            else:
                query = validated_query(schema, request.query)
            return await view(*args, query_args=query, **kwargs)

        return document_querystring(schema)(validated)

    return decorator


def validated_query(schema: type[M], query: MultiDict[str, str]) -> M:
    """Validate query parameters against a schema.

    Raises:
        InvalidRequest: a parameter is unknown or not valid.
    """
    given: dict[str, str | list[str]] = {}
    for name, values in query.lists():
        if name.endswith("[]"):
            given[name.removesuffix("[]")] = values
        else:
            given[name] = values[0] if len(values) == 1 else values
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(errors=field_errors(error, in_query=True)) from None


def json_body(schema: type[BaseModel], *, optional: bool = False) -> Callable[[View[T]], View[T]]:
    """Pass the validated JSON body as ``data``.

    Args:
        schema: the schema.
        optional: whether an absent body stands for an empty object.

    Raises:
        UnsupportedMediaType: the body is not declared as JSON in UTF-8.
        MalformedRequest: the body is not JSON that every parser reads alike.
        InvalidRequest: a field is not valid.
    """

    def decorator(view: View[T]) -> View[T]:
        @wraps(view)
        async def validated(*args: Any, **kwargs: Any) -> T:
            request = current_request()
            value = {} if optional and not request.body else parse_json(json_of(request))
            try:
                data = schema.model_validate(value)
            except ValidationError as error:
                raise InvalidRequest(errors=field_errors(error)) from None
            return await view(*args, data=data, **kwargs)

        return document_request(schema)(validated)

    return decorator


def json_of(request: Request) -> bytes:
    """Return a body that is declared as JSON.

    Raises:
        UnsupportedMediaType: the body is not declared as JSON in UTF-8.
    """
    media_type, parameters = request.content_type
    if media_type != JSON:
        raise UnsupportedMediaType("The body must be application/json.")
    if parameters.get("charset", "utf-8").lower() != "utf-8":
        raise UnsupportedMediaType("JSON must be in UTF-8.")
    return request.body
