"""``/api/products/changes``: what has happened since, and what happens from now on."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import orjson
from quart import Blueprint, Response, request
from quart_schema import (
    document_headers,
    document_response,
    tag_blueprint,
    validate_querystring,
)

from catalog.auth.guards import public
from catalog.db.columns import MAX_ID
from catalog.errors import CatalogError, ChangesGone, FieldError, InvalidRequest, Overloaded
from catalog.http.context import database
from catalog.http.limits import limited
from catalog.http.negotiation import EVENT_STREAM, offers, wanted
from catalog.http.openapi import refuses
from catalog.http.rendering import json_response
from catalog.http.streaming import stream_response
from catalog.products import changes
from catalog.products.context import products
from catalog.products.feed import Entry, entries_of
from catalog.products.schemas import ChangePage, ChangesQuery, LastEventId, PositionHeaders

RECONNECT_MILLISECONDS = 1000
"""After which a browser comes back when the stream has ended."""

PATH = "/api/products/changes"

blueprint = Blueprint("product_changes", __name__, url_prefix=PATH)
tag_blueprint(blueprint, ["products"])


@blueprint.get("")
@limited("read")
@public
@refuses(ChangesGone, Overloaded)
@offers(EVENT_STREAM)
@validate_querystring(ChangesQuery)
@document_headers(LastEventId)
@document_response(ChangePage, 200, PositionHeaders)
async def list_changes(query_args: ChangesQuery) -> Response:
    """List what has happened to products after a position, in the order of the commits."""
    if wanted() == EVENT_STREAM:
        return await _stream(_last_event_id(query_args.since))
    since, limit = query_args.since, query_args.limit
    found = await database().reading(changes.read_changes, since=since, limit=limit)
    entries, more = entries_of(found), found.more
    if not entries and query_args.wait:
        feed = products().feed
        entries = await feed.wait(since=since, limit=limit, seconds=query_args.wait)
        more = len(entries) == limit
    position = entries[-1].position if entries else since
    body = b'{"changes":[%b],"position":%d,"more":%b}' % (
        b",".join(entry.json for entry in entries),
        position,
        b"true" if more else b"false",
    )
    return json_response(body, headers=changes.headers(position))


def _last_event_id(since: int) -> int:
    """Where an interrupted stream goes on; the header is newer than the URL."""
    text = request.headers.get("Last-Event-ID", "")
    if not text:
        return since
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_ID):
        message = "It must be a position."
        raise InvalidRequest(errors=[FieldError("header", "Last-Event-ID", message)])
    return int(text)


async def _stream(since: int) -> Response:
    """Server-sent events (HTML Standard, section 9.2), until the client or the process goes."""
    feed = products().feed
    # Refused while that can still be said by a status.
    await feed.check(since)
    return await stream_response(
        _events(feed.follow(since)),
        media_type=EVENT_STREAM,
        headers=changes.headers(since),
    )


async def _events(stretches: AsyncGenerator[Sequence[Entry], None]) -> AsyncGenerator[bytes, None]:
    # Tells proxies and clients that it has begun, too.
    yield b"retry: %d\n\n" % RECONNECT_MILLISECONDS
    try:
        async with aclosing(stretches):
            async for stretch in stretches:
                # JSON on one line has no line breaks of its own.
                events = b"".join(b"id: %d\ndata: %b\n\n" % entry for entry in stretch)
                yield events or b":\n\n"
    except CatalogError as error:
        end = orjson.dumps({"code": error.slug, "detail": error.detail})
        yield b"event: end\ndata: %b\n\n" % end
