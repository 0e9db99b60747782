"""``/api/products/changes``: the change log by page, long poll, or event stream."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import lru_cache

import orjson
from quart_schema import document_headers, document_response, tag_blueprint

from catalog.auth.guards import public
from catalog.errors import CatalogError, ChangesGone, FieldError, InvalidRequest, Overloaded
from catalog.http.adapter import Routes
from catalog.http.context import app_state
from catalog.http.limits import limited
from catalog.http.openapi import refuses
from catalog.http.replies.negotiation import EVENT_STREAM, JSON, negotiate, offers
from catalog.http.replies.reply import Reply, admitted
from catalog.http.replies.streaming import stream_reply
from catalog.http.request import current_request
from catalog.http.response_buffers import SHARED_BYTES, ResponseBuffers
from catalog.http.validation import query_parameters
from catalog.products.changes import change_ids
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.change_reader import page_reply
from catalog.products.changes.log_reader import Entry
from catalog.products.changes.schemas import ChangePage, ChangesQuery, LastEventId, change_id
from catalog.products.context import products
from catalog.products.schemas import PositionHeaders

RECONNECT_MILLISECONDS = 1000
"""Delay after which a browser reconnects when the stream has ended."""

PATH = "/api/products/changes"

blueprint = Routes("product_changes", __name__, url_prefix=PATH)
tag_blueprint(blueprint, ["products"])


@blueprint.get("")
@limited("read")
@public
@refuses(ChangesGone, Overloaded)
@offers(EVENT_STREAM)
@query_parameters(ChangesQuery)
@document_headers(LastEventId)
@document_response(ChangePage, 200, PositionHeaders)
async def list_changes(query_args: ChangesQuery) -> Reply:
    """List what has happened to products after a change, in the order of the commits.

    To begin, export the products and follow the changes from the `Catalog-Change` of that response;
    then send `change` of each response as the next `since`. `wait` makes it a long poll; as
    `text/event-stream`, the same comes as server-sent events, resumed by `Last-Event-ID`. Changes
    are kept for 30 days; older ones are 410.
    """
    if negotiate((JSON, EVENT_STREAM)) == EVENT_STREAM:
        return await _stream(_last_event_id(query_args))
    since, limit = query_args.since, query_args.limit
    found = await products().change_reader.read(since, limit)
    if query_args.wait and found.is_empty:
        feed = products().feed
        # With the token, even if the client sent none: a change of history can then be detected.
        entries = await feed.wait(since=found.last, limit=limit, seconds=query_args.wait)
        return admitted(page_reply(entries, found.last, more=len(entries) == limit))
    return admitted(found.reply)


def _last_event_id(query: ChangesQuery) -> ChangeId:
    """Return the change at which to resume a stream; a polyfill only adds to the URL it was given.

    The header is newer than either.
    """
    text = current_request().header("last-event-id")
    if not text:
        return query.since if query.last_event_id is None else query.last_event_id
    try:
        return change_id(text)
    except ValueError:
        rule = "must be a position, or a change such as 8.5f0c29a1be"
        raise InvalidRequest(errors=[FieldError("header", "Last-Event-ID", rule)]) from None


async def _stream(since: ChangeId) -> Reply:
    """Stream server-sent events (HTML Standard, section 9.2) until the client or process ends."""
    feed = products().feed
    # Errors are raised before the response begins, while they can still be reported by a status.
    await feed.check(since)
    return await stream_reply(
        _events(feed.follow(since), app_state().buffers),
        media_type=EVENT_STREAM,
        headers=change_ids.read_headers(since),
    )


async def _events(
    stretches: AsyncGenerator[Sequence[Entry], None], buffers: ResponseBuffers
) -> AsyncGenerator[bytes, None]:
    # Sent at once, so that proxies and clients see that the response has begun.
    yield b":\n\n"
    # Part of the first event: some clients take a block without data for an empty event.
    begin = b"retry: %d\n" % RECONNECT_MILLISECONDS
    try:
        async with aclosing(stretches):
            async for stretch in stretches:
                if not stretch:
                    yield b":\n\n"
                    continue
                events = _encoded(tuple(stretch))
                if len(events) >= SHARED_BYTES:
                    # The client resumes when others have been sent what waits for them.
                    buffers.admit()
                if begin:
                    # By itself, so that the events are the same object as for other followers.
                    yield begin
                    begin = b""
                yield events
    except CatalogError as error:
        end = orjson.dumps({"code": error.slug, "detail": error.detail})
        yield b"%bevent: end\ndata: %b\n\n" % (begin, end)


# Followers are mostly at the same change, and hold what they have not read yet.
@lru_cache(maxsize=4)
def _encoded(stretch: tuple[Entry, ...]) -> bytes:
    """Return the events of changes; the same object for equal changes of late."""
    # The JSON has no line breaks, so one data line holds it.
    return b"".join(b"id: %b\ndata: %b\n\n" % entry[1:] for entry in stretch)
