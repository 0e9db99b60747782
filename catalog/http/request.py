"""The current request, independent of the framework.

The outermost middleware sets it. Limits, guards, schemas and views read it here and nowhere else,
so they do the same whether the framework calls them or the fast path.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar, Token
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from quart import Quart
from werkzeug.datastructures import MultiDict
from werkzeug.http import parse_options_header

from catalog.errors import MalformedRequest

Header = tuple[bytes, bytes]
"""A header field: its name in lower case, and its value."""

Fields = Mapping[bytes, list[bytes]]
"""Values of a request's header fields, in the order of their lines, by name in lower case."""

Client = tuple[str, int] | None
"""An ASGI client: address and port."""

PREFIX = "catalog.prefix"
"""Key on a request's scope: the path under which the service is published; absent at the root."""

MATCH = "catalog.match"
"""Key on a request's scope: what the dispatcher has found out about it."""

BY_NAME = "catalog.fields"
"""Key on a request's scope: its header fields as ``fields_of`` returns them."""

ROUTE = "catalog.route"
"""Key on a request's scope: the route template that it matched, once that is known."""

USER_ID = "catalog.user_id"
"""Key on a request's scope: the id of its account as text, once its token is read."""

_CURRENT: ContextVar["Request"] = ContextVar("catalog.request")


def fields_of(scope: Any) -> Fields:
    """Return a request's header fields; they are collected once and kept on its scope."""
    known: Fields | None = scope.get(BY_NAME)
    if known is not None:
        return known
    fields: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        if name in fields:
            fields[name].append(value)
        else:
            fields[name] = [value]
    scope[BY_NAME] = fields
    return fields


def changed(scope: Any, **changes: Any) -> Any:
    """Return a copy of a scope with changes, and without what was derived from it."""
    return {key: scope[key] for key in scope.keys() - {BY_NAME, MATCH}} | changes


def annotate(scope: Any, key: str, value: str) -> None:
    """Store a value on the request's scope for inner and outer layers."""
    scope[key] = value


class Request:
    """A request, and what its decorators found out about it.

    Args:
        app: the app that handles it.
        scope: its ASGI scope.
        request_id: its id in the response and the log.

    Attributes:
        fields: its header fields.
        body: the whole body as it was sent; empty if it is streamed, or not received yet.
        decode: decodes the body if it has a content coding, else None; a stream is decoded already.
        stream: the pieces of a streamed body, else None.
        ask: reads the body of a client that waits for 100 before it sends it; None for others, and
            once it has.
        limit_headers: the headers of its rate limit, once it was counted.
        bearer: the bearer of its token, once a guard has admitted it; its type is the guard's.
    """

    body: bytes = b""
    decode: Callable[[bytes], Awaitable[bytes]] | None = None
    stream: AsyncIterator[bytes] | None = None
    ask: Callable[[], Awaitable[bytes]] | None = None
    limit_headers: Mapping[str, str] = MappingProxyType({})
    bearer: Any = None

    def __init__(self, app: Quart, scope: Any, request_id: str) -> None:
        self.app = app
        self.scope = scope
        self.request_id = request_id
        self.fields = fields_of(scope)

    @property
    def method(self) -> str:
        """The method, in upper case."""
        method: str = self.scope["method"]
        return method

    @property
    def prefix(self) -> str:
        """The path under which the service is published, such as ``/shop``; empty at the root."""
        prefix: str = self.scope.get(PREFIX, "")
        return prefix

    @property
    def query_string(self) -> bytes:
        """The query as it was sent, without the question mark."""
        query: bytes = self.scope["query_string"]
        return query

    @property
    def client(self) -> Client:
        """The client's address and port; None if the request came through a unix socket."""
        client: Client = self.scope.get("client")
        return client

    def header_values(self, name: str) -> list[str]:
        """Return the values of a header field, one for each line that has it.

        Args:
            name: the field's name in lower case.
        """
        return [value.decode("latin-1") for value in self.fields.get(name.encode(), ())]

    def header(self, name: str) -> str:
        """Return the first value of a header field, or an empty string."""
        values = self.fields.get(name.encode())
        return values[0].decode("latin-1") if values else ""

    @cached_property
    def query(self) -> MultiDict[str, str]:
        """The query parameters; raises as ``parse_query``."""
        return parse_query(self.query_string)

    async def receive_body(self) -> None:
        """Receive the body of a client that waits for 100 before it sends it; idempotent.

        Raises:
            BodyTooLarge, MalformedRequest, RequestTimeout, Overloaded: it does not arrive.
        """
        if self.ask is not None:
            self.body = await self.ask()
            self.ask = None

    async def decoded_body(self) -> bytes:
        """Return the whole body without its content coding.

        Raises:
            MalformedRequest, BodyTooLarge: it cannot be decoded, or as ``receive_body``.
            RequestTimeout, Overloaded: as ``receive_body``.
        """
        await self.receive_body()
        return self.body if self.decode is None else await self.decode(self.body)

    def release(self) -> None:
        """Free the header fields and the body after the response.

        Timers of this context keep the request for some time, even cancelled ones, and the server's
        idle timer keeps it until the connection's next one.
        """
        self.body = b""
        self.fields = {}
        self.scope["headers"] = []
        self.scope.pop(BY_NAME, None)

    @property
    def content_type(self) -> tuple[str, Mapping[str, str]]:
        """The body's media type in lower case, and its parameters."""
        return content_type_of(self.fields)


def parse_query(query_string: bytes) -> MultiDict[str, str]:
    """Parse a query.

    Raises:
        MalformedRequest: it contains bytes that are not UTF-8, percent-encoded or not.
    """
    try:
        text = query_string.decode()
        return MultiDict(parse_qsl(text, keep_blank_values=True, errors="strict"))
    except UnicodeDecodeError:
        raise MalformedRequest("The query is not UTF-8.") from None


def content_type_of(fields: Fields) -> tuple[str, Mapping[str, str]]:
    """Return a body's media type in lower case, and its parameters."""
    values = fields.get(b"content-type")
    return _content_type(values[0]) if values else ("", {})


@lru_cache(256)
def _content_type(value: bytes) -> tuple[str, Mapping[str, str]]:
    media_type, parameters = parse_options_header(value.decode("latin-1"))
    return media_type.lower(), parameters


def current_request() -> Request:
    """Return the request that is being handled.

    Raises:
        LookupError: none is.
    """
    return _CURRENT.get()


def set_current_request(request: Request) -> Token[Request]:
    """Set the current request; the token is for ``reset_current_request``."""
    return _CURRENT.set(request)


def reset_current_request(token: Token[Request]) -> None:
    """Undo ``set_current_request``."""
    _CURRENT.reset(token)
