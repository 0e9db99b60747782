"""Fast path: answers hot requests without Quart.

Quart's overhead is three times the cost of a page from a shared read, and as much as that of a
create in a batch. So plain requests for pages of all products, and plain creates, are answered in
front of it, with the same rate limits, guard, schemas, rules and surrounding middleware. All other
requests are passed on to Quart, and so are invalid ones, as long as nothing was done.
"""

import re
from collections.abc import Coroutine, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    HTTPScope,
    Scope,
)
from pydantic import ValidationError
from quart import Quart

from catalog.auth.guards import authenticate, token_among
from catalog.concurrency.group_commit import GroupCommit
from catalog.errors import CatalogError, InvalidCursor
from catalog.http.conditional import is_known, key_among
from catalog.http.context import AppState
from catalog.http.limits import Policy, count_request
from catalog.http.negotiation import JSON, best_of
from catalog.http.problems import to_problem
from catalog.http.request_body import replaying
from catalog.http.response_buffers import LARGE_BYTES
from catalog.http.response_headers import annotate, send_problem
from catalog.http.strict_json import parse_json
from catalog.products.bulk.formats import FORMATS
from catalog.products.listing.page_cache import Pages
from catalog.products.listing.page_request import PageRequest
from catalog.products.models import NewProduct
from catalog.products.responses import create
from catalog.products.schemas import PATH, ListQuery, ProductCreate
from catalog.products.service import Create, WriteResult

T = TypeVar("T")

KNOWN = 1024
"""Entries in each cache of parsed queries and ``Accept`` headers."""

# No percent-encoding, so that no decoding is needed; bounded in length, so that the caches are
# small.
_PLAIN = re.compile(rb"(?:[a-z_]+=[A-Za-z0-9_.,-]+(?:&(?!\Z)|\Z)){0,16}")
_MAX_LENGTH = 512

_MAX_BODY_BYTES = 64 * 1024

# A request with a token is tied to its caller; one with a body has to be read first.
_NOT_PLAIN = {b"authorization", b"content-length", b"transfer-encoding", b"expect"}


def is_plain(scope: HTTPScope) -> bool:
    """Return whether a request takes the fast path: a plain page or a plain create.

    Its response is short. It is not cancelled when the client disconnects: other requests share
    the page, and a create that was received is carried out.
    """
    return _plain(scope) is not None or _create_fields(scope) is not None


class _Plain(NamedTuple):
    query: bytes
    tags: list[str]


def _plain(scope: HTTPScope) -> _Plain | None:
    """Return the query and the ``If-None-Match`` values of a plain page request, or None."""
    if scope["path"] != PATH or scope["method"] != "GET":
        return None
    accept = b""
    tags: list[str] = []
    for name, value in scope["headers"]:
        if name == b"accept":
            accept = b"%b,%b" % (accept, value) if accept else value
        elif name == b"if-none-match":
            tags.append(value.decode("latin-1"))
        elif name in _NOT_PLAIN:
            return None
    query = scope["query_string"]
    if max(len(query), len(accept)) > _MAX_LENGTH or _PLAIN.fullmatch(query) is None:
        return None
    if not _wants_json(accept):
        return None
    return _Plain(query, tags)


@lru_cache(KNOWN)
def _wants_json(accept: bytes) -> bool:
    return best_of((JSON, *FORMATS), accept.decode("latin-1")) == JSON


class PageFastPath:
    """ASGI middleware that answers plain page requests and passes on all others.

    Args:
        app: the application for all other requests.
        running: the application's state.
        pages: the page cache.
    """

    def __init__(self, app: ASGIFramework, running: AppState, pages: Pages) -> None:
        self._app = app
        self._running = running
        self._pages = pages
        self._asked = lru_cache(KNOWN)(self._parse)

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] == "http" and (plain := _plain(scope)) is not None:
            asked = self._asked(plain.query)
            if asked is not None:
                annotate(scope, route=PATH)
                await self._answer(asked, plain.tags, scope, send)
                return
        await self._app(scope, receive, send)

    def _parse(self, query: bytes) -> PageRequest | None:
        parts = [part.split("=") for part in query.decode("ascii").split("&")] if query else []
        given = dict(parts)
        if len(given) < len(parts):
            return None
        try:
            parsed = ListQuery.model_validate(given)
            return PageRequest.of_all(parsed, self._running.cursors, given)
        except (ValidationError, InvalidCursor):
            # Quart reports the error.
            return None

    async def _answer(
        self, asked: PageRequest, tags: list[str], scope: HTTPScope, send: ASGISendCallable
    ) -> None:
        done = await _do(self._running, "read", self._pages.read(asked), scope, send)
        if done is None:
            return
        page, headers = done
        known = is_known(page.etag, tags)
        own = {**page.headers, "ETag": page.etag, **headers}
        if not known and len(page.body) >= LARGE_BYTES:
            try:
                self._running.buffers.admit(len(page.body))
            except CatalogError as error:
                error.headers.update(headers)
                await send_problem(scope, send, error)
                return
        await _send(send, 304 if known else 200, own, b"" if known else page.body)


class CreateFastPath:
    """ASGI middleware that answers plain creates and passes on all other requests.

    It runs inside the middleware that bounds bodies, so a body arrives in one message.

    Args:
        app: the Quart app, which answers all other requests.
        running: the application's state.
        creates: the group commit of new products.
    """

    def __init__(
        self, app: Quart, running: AppState, creates: GroupCommit[Create, WriteResult]
    ) -> None:
        self._app = app
        self._framework = app.asgi_app
        self._running = running
        self._creates = creates

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http" or (fields := _create_fields(scope)) is None:
            await self._framework(scope, receive, send)
            return
        message = await receive()
        if message["type"] != "http.request" or message["more_body"]:
            # The client has disconnected; Quart receives that message.
            await self._framework(scope, _after(message, receive), send)
            return
        if len(message["body"]) > _MAX_BODY_BYTES:
            # A large body takes long to parse, and an invalid one would be parsed twice.
            await self._framework(scope, replaying(message["body"], receive), send)
            return
        try:
            bearer = authenticate(self._app, scope, token_among(fields.authorization))
            data = ProductCreate.model_validate(parse_json(message["body"]))
            key = key_among(fields.idempotency_key)
        except (CatalogError, ValidationError):
            # Quart reports the error.
            await self._framework(scope, replaying(message["body"], receive), send)
            return
        annotate(scope, route=PATH)
        offer = NewProduct(data.name, data.description, data.price, bearer.user_id)
        await self._create(offer, key, scope, send)

    async def _create(
        self, offer: NewProduct, key: str | None, scope: HTTPScope, send: ASGISendCallable
    ) -> None:
        done = await _do(self._running, "write", create(self._creates, offer, key), scope, send)
        if done is None:
            return
        created, headers = done
        await _send(send, 201, {**created.headers, **headers}, created.body)


class _CreateFields(NamedTuple):
    authorization: list[str]
    idempotency_key: list[str]


def _create_fields(scope: HTTPScope) -> _CreateFields | None:
    """Return the header fields of a plain create, or None if the request is not one."""
    if scope["method"] != "POST" or scope["path"] != PATH or scope["query_string"]:
        return None
    authorization: list[str] = []
    keys: list[str] = []
    accept = media_type = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization.append(value.decode("latin-1"))
        elif name == b"idempotency-key":
            keys.append(value.decode("latin-1"))
        elif name == b"content-type":
            media_type = value
        elif name == b"accept":
            accept = b"%b,%b" % (accept, value) if accept else value
    if media_type != JSON.encode() or len(accept) > _MAX_LENGTH or not _takes_json(accept):
        return None
    return _CreateFields(authorization, keys)


@lru_cache(KNOWN)
def _takes_json(accept: bytes) -> bool:
    return best_of((JSON,), accept.decode("latin-1")) is not None


def _after(message: ASGIReceiveEvent, receive: ASGIReceiveCallable) -> ASGIReceiveCallable:
    """Return a receive function that repeats a message before those that follow it."""
    messages = [message]

    async def receive_again() -> ASGIReceiveEvent:
        return messages.pop() if messages else await receive()

    return receive_again


async def _do(
    running: AppState,
    policy: Policy,
    work: Coroutine[Any, Any, T],
    scope: HTTPScope,
    send: ASGISendCallable,
) -> tuple[T, dict[str, str]] | None:
    """Apply the rate limit and do the request's work.

    Returns:
        the result and the rate limit's headers; None if an error response was sent.
    """
    headers: dict[str, str] = {}
    try:
        counted = await count_request(running, policy, scope.get("client"))
        if counted is not None:
            headers = counted.headers()
            counted.admit()
        return await work, headers
    except Exception as fault:  # noqa: BLE001 (it is reported to the client, and logged)
        error = to_problem(fault)
        error.headers.update(headers)
        await send_problem(scope, send, error)
        return None
    finally:
        # A no-op after completion; a coroutine that was never awaited would emit a warning.
        work.close()


async def _send(
    send: ASGISendCallable, status: int, headers: Mapping[str, str], body: bytes
) -> None:
    fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    if status != HTTPStatus.NOT_MODIFIED:
        fields += [
            (b"content-type", JSON.encode()),
            (b"content-length", b"%d" % len(body)),
        ]
    start: Any = {"type": "http.response.start", "status": status, "headers": fields}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
