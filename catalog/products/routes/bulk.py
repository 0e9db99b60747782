"""Bulk create: ``POST /api/products`` with a body of many lines, one product each."""

import orjson

from catalog.auth.guards import caller_id
from catalog.errors import FieldError, InvalidRequest, UnsupportedMediaType
from catalog.http.context import database
from catalog.http.middleware.body_stream import pieces_of
from catalog.http.replies.negotiation import JSON
from catalog.http.replies.reply import Reply, json_reply
from catalog.http.request import current_request
from catalog.http.validation import accepted
from catalog.products.bulk import importing
from catalog.products.bulk.formats import IMPORTED, Format, ReaderOptions
from catalog.products.bulk.schemas import BulkQuery
from catalog.products.changes import change_counter, change_ids
from catalog.products.context import products

_FOR_ONE = "is only for requests that create one product"


async def import_products(form: Format, query: BulkQuery) -> Reply:
    """Create the products of the current request's body."""
    request = current_request()
    codec = form.charsets.get(request.content_type[1].get("charset", "utf-8").lower())
    if codec is None:
        known = ", ".join(form.charsets)
        raise UnsupportedMediaType(
            f"The charset of {form.media_type} must be one of {known}.",
            headers=accepted("POST", (JSON, *IMPORTED)),
        )
    if b"idempotency-key" in request.fields:
        raise InvalidRequest(errors=[FieldError("header", "Idempotency-Key", _FOR_ONE)])
    upsert = query.mode == "upsert"
    with products().imports.taken():
        imported = await importing.import_products(
            database(),
            pieces_of(request),
            form.reader(ReaderOptions(codec, guard=query.guard, upsert=upsert)),
            owner_id=caller_id(),
            upsert=upsert,
            atomic=query.atomic,
            dry_run=query.dry_run,
        )
    change = imported.change
    if change is None:
        async with database().connection() as connection:
            change = await change_counter.current_change(connection)
    body = orjson.dumps(imported.rendered())
    return json_reply(body, headers=change_ids.position_headers(change))
