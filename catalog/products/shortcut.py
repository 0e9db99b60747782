"""The short way to a page: for the requests of which there are many, without the framework.

The framework costs three times of what a page costs that is shared with others. So requests for
pages of everyone's products that are as plain as they can be are answered in front of it: the same
limits, pages and headers, and the same middleware around it. Whatever is not plain goes on to the
framework, errors in the query among them.
"""

import re
from functools import lru_cache
from typing import Any, NamedTuple

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from pydantic import ValidationError

from catalog.errors import InvalidCursor
from catalog.http.conditional import is_known
from catalog.http.context import Running
from catalog.http.headers import annotate, refuse
from catalog.http.limits import count_request
from catalog.http.negotiation import JSON, best_of
from catalog.http.problems import refusal_of
from catalog.products.formats import FORMATS
from catalog.products.pages import PATH, Asked, Pages, Rendered
from catalog.products.schemas import ListQuery

KNOWN = 1024
"""Queries, and kinds of ``Accept``, that are remembered with what they mean."""

# No escapes, so that it means what it says; and not so long that remembering them takes much.
_PLAIN = re.compile(rb"(?:[a-z_]+=[A-Za-z0-9_.,-]+(?:&(?!\Z)|\Z)){0,16}")
_MAX_QUERY = 512

# With a token a list is the caller's business; with a body the request has to be read first.
_NOT_PLAIN = {b"authorization", b"content-length", b"transfer-encoding", b"expect"}


def is_plain(scope: HTTPScope) -> bool:
    """Whether a request is for a page, in the plainest form; its answer is short in any case."""
    return _plain(scope) is not None


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
    if len(query) > _MAX_QUERY or not _wants_json(accept) or _PLAIN.fullmatch(query) is None:
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

    def __init__(self, app: ASGIFramework, running: Running, pages: Pages) -> None:
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

    def _parse(self, query: bytes) -> Asked | None:
        parts = [part.split("=") for part in query.decode("ascii").split("&")] if query else []
        given = dict(parts)
        if len(given) < len(parts):
            return None
        try:
            parsed = ListQuery.model_validate(given)
            return Asked.of_all(parsed, self._running.cursors, given)
        except (ValidationError, InvalidCursor):
            # The framework tells what is wrong with it.
            return None

    async def _answer(
        self, asked: Asked, tags: list[str], scope: HTTPScope, send: ASGISendCallable
    ) -> None:
        headers: dict[str, str] = {}
        try:
            counted = await count_request(self._running, "read", scope.get("client"))
            if counted is not None:
                headers = counted.headers()
                counted.admit()
            page = await self._pages.read(asked)
        except Exception as fault:  # noqa: BLE001 (it is told to the client, and logged)
            error = refusal_of(fault)
            error.headers.update(headers)
            await refuse(scope, send, error)
            return
        known = is_known(page.etag, tags)
        await _send(page, send, headers, known=known)


async def _send(
    page: Rendered, send: ASGISendCallable, headers: dict[str, str], *, known: bool
) -> None:
    fields = [
        (name.lower().encode(), value.encode())
        for name, value in {**page.headers, "ETag": page.etag, **headers}.items()
    ]
    body = b"" if known else page.body
    if not known:
        fields += [
            (b"content-type", JSON.encode()),
            (b"content-length", b"%d" % len(body)),
        ]
    start: Any = {
        "type": "http.response.start",
        "status": 304 if known else 200,
        "headers": fields,
    }
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
