"""Bulk create: ``POST /api/products`` with a body of many lines, one product each."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec

import orjson

from catalog.auth.guards import caller_id
from catalog.errors import FieldError, InvalidRequest, UnsupportedMediaType
from catalog.http.context import database
from catalog.http.middleware.body_stream import pieces_of
from catalog.http.replies.reply import Reply, json_reply
from catalog.http.request import current_request
from catalog.http.validation import validated_query
from catalog.products.bulk import importing
from catalog.products.bulk.formats import IMPORTED, Format, ReaderOptions
from catalog.products.bulk.schemas import BulkQuery
from catalog.products.changes import change_log
from catalog.products.context import products

P = ParamSpec("P")

_FOR_ONE = "is only for requests that create one product"
_FOR_MANY = "is only for bulk requests"

_DEFAULTS = BulkQuery()

View = Callable[P, Awaitable[Reply]]


def takes_many(view: View[P]) -> View[P]:
    """Extend a view that creates one product to accept bulk requests, as any of ``IMPORTED``."""

    @wraps(view)
    async def create(*args: P.args, **kwargs: P.kwargs) -> Reply:
        request = current_request()
        # Most requests create one product and have no query; parsing an empty one takes 6 us.
        query = validated_query(BulkQuery, request.query) if request.query_string else _DEFAULTS
        form = IMPORTED.get(request.content_type[0])
        if form is not None:
            return await _import_products(form, query)
        for name in ("dry_run", "mode"):
            if getattr(query, name) != getattr(_DEFAULTS, name):
                raise InvalidRequest(errors=[FieldError("parameter", name, _FOR_MANY)])
        return await view(*args, **kwargs)

    return create


async def _import_products(form: Format, query: BulkQuery) -> Reply:
    request = current_request()
    codec = form.charsets.get(request.content_type[1].get("charset", "utf-8").lower())
    if codec is None:
        known = ", ".join(form.charsets)
        raise UnsupportedMediaType(f"The charset of {form.media_type} must be one of {known}.")
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
            change = await change_log.current_change(connection)
    body = orjson.dumps(imported.rendered())
    return json_reply(body, headers=change_log.position_headers(change))
