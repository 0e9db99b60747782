"""The short ways, without the framework, for the requests of which there are many.

The framework costs three times of what a page costs that is shared with others, and as much as a
create that shares its transaction. So requests for pages of everyone's products, and creates, that
are as plain as they can be are answered in front of it: by the same limits, guard, schemas and
rules, and with the same middleware around it. Whatever is not plain goes on to the framework, and
so does every fault that is found before anything was done.
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
"""Queries, and kinds of ``Accept``, that are remembered with what they mean."""

# No escapes, so that it means what it says; and not so long that remembering them takes much.
_PLAIN = re.compile(rb"(?:[a-z_]+=[A-Za-z0-9_.,-]+(?:&(?!\Z)|\Z)){0,16}")
_MAX_LENGTH = 512

_MAX_BODY_BYTES = 64 * 1024

# With a token a list is the caller's business; with a body the request has to be read first.
_NOT_PLAIN = {b"authorization", b"content-length", b"transfer-encoding", b"expect"}


def is_plain(scope: HTTPScope) -> bool:
    """Whether a request is for a page, or creates a product, in the plainest form.

    Its answer is short in any case. Whoever hangs up changes nothing: a page is shared by others,
    and a create that was asked for is done.
    """
    return _plain(scope) is not None or _create_fields(scope) is not None


class _Plain(NamedTuple):
    query: bytes
    tags: list[str]


def _plain(scope: HTTPScope) -> _Plain | None:
    """The query of a plain request, and the tags of what the client has already."""
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


class Shortcut:
    """ASGI middleware: answers plain requests for pages, and hands on all others.

    Args:
        app: what answers the others.
        running: what the app runs on.
        pages: what answers here.
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
            # The framework tells what is wrong with it.
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


class CreateShortcut:
    """ASGI middleware: does plain creates, and hands on all others.

    It stands behind what bounds bodies, so a body is there as a whole.

    Args:
        app: the framework, which answers the others.
        running: what the app runs on.
        creates: what writes new products.
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
            # The client is gone, and the framework gets to hear of it.
            await self._framework(scope, _after(message, receive), send)
            return
        if len(message["body"]) > _MAX_BODY_BYTES:
            # It takes long to read, and is not to be read twice if it is faulty.
            await self._framework(scope, replaying(message["body"], receive), send)
            return
        try:
            bearer = authenticate(self._app, scope, token_among(fields.authorization))
            data = ProductCreate.model_validate(parse_json(message["body"]))
            key = key_among(fields.idempotency_key)
        except (CatalogError, ValidationError):
            # The framework tells what is wrong with it.
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
    """What a plain create says in its head; None if it is not plain."""
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
    """A way to receive a message once more, and what follows it."""
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
    """Count the request and do its work.

    Returns:
        what came of it, and the headers that tell of the limit; None if the client has been told
        why there is nothing.
    """
    headers: dict[str, str] = {}
    try:
        counted = await count_request(running, policy, scope.get("client"))
        if counted is not None:
            headers = counted.headers()
            counted.admit()
        return await work, headers
    except Exception as fault:  # noqa: BLE001 (it is told to the client, and logged)
        error = to_problem(fault)
        error.headers.update(headers)
        await send_problem(scope, send, error)
        return None
    finally:
        # Nothing once it is done; without it, what was never begun would warn of that.
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
