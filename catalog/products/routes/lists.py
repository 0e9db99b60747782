"""``/api/products`` and ``/api/products/my``: pages of products, and exports."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from quart_schema import document_response, tag_blueprint

from catalog.auth.guards import caller_id, public, signed_in
from catalog.concurrency.capacity_limiter import CapacityLimiter
from catalog.errors import FieldError, InvalidRequest, Overloaded
from catalog.http.adapter import Routes
from catalog.http.context import database
from catalog.http.limits import limited
from catalog.http.openapi import refuses, revalidates
from catalog.http.replies.conditional import revalidated
from catalog.http.replies.negotiation import JSON, negotiate, offers
from catalog.http.replies.reply import Reply
from catalog.http.replies.streaming import stream_reply
from catalog.http.request import current_request
from catalog.http.validation import query_parameters
from catalog.products.bulk import exporting
from catalog.products.bulk.formats import CSV, FORMATS, Format, WriterOptions
from catalog.products.changes import change_counter, change_ids
from catalog.products.context import products
from catalog.products.listing.page_request import PageRequest
from catalog.products.schemas import PATH, ListQuery, MyListQuery, PageHeaders, ProductPage

_OFFERED = (JSON, *FORMATS)
_BY_NAME = {form.name: form for form in FORMATS.values()}

blueprint = Routes("product_lists", __name__, url_prefix=PATH)
tag_blueprint(blueprint, ["products"])


@blueprint.get("")
@limited("read")
@public
@refuses(Overloaded)
@revalidates
@offers(*FORMATS)
@query_parameters(ListQuery)
@document_response(ProductPage, 200, PageHeaders)
async def list_products(query_args: ListQuery) -> Reply:
    """List everyone's products, newest first by default.

    Follow `next`, or send `next_cursor` as `cursor` with the same filters and order, for the next
    page. Walking all pages while others write yields every product that exists throughout exactly
    once. As NDJSON or CSV, the response is an export of all products that match, without a default
    `limit`.
    """
    request = current_request()
    page_requests = products().page_requests
    return await _list(
        page_requests.for_all(query_args, request.query_string, prefix=request.prefix)
    )


@blueprint.get("/my")
@limited("read")
@signed_in
@refuses(Overloaded)
@revalidates
@offers(*FORMATS)
@query_parameters(MyListQuery)
@document_response(ProductPage, 200, PageHeaders)
async def list_my_products(query_args: MyListQuery) -> Reply:
    """List your own products, newest first by default.

    Pages and exports as those of everyone's products.
    """
    request = current_request()
    page_requests = products().page_requests
    return await _list(
        page_requests.for_owner(
            query_args, request.query_string, caller_id(), prefix=request.prefix
        )
    )


async def _list(page_request: PageRequest) -> Reply:
    query = page_request.query
    form = _form(query)
    if form is not CSV and (query.bom or not query.guard):
        name = "bom" if query.bom else "guard"
        raise InvalidRequest(errors=[FieldError("parameter", name, "is only for CSV")])
    if form is None:
        page = await products().page_cache.read(page_request)
        return revalidated(page.reply)
    if query.total:
        raise InvalidRequest(errors=[FieldError("parameter", "total", "is only for pages")])
    return await _export(form, page_request)


def _form(query: MyListQuery) -> Format | None:
    """Return the format of an export, or None for a page.

    Raises:
        NotAcceptable: the client accepts neither JSON nor any of ``FORMATS``.
    """
    if query.format is None:
        return FORMATS.get(negotiate(_OFFERED))
    return _BY_NAME.get(query.format)


async def _export(form: Format, page_request: PageRequest) -> Reply:
    # Read before the products, so that following from this change misses nothing.
    async with database().connection() as connection:
        change = await change_counter.current_change(connection)
    query = page_request.query
    pieces = exporting.export_products(
        database(),
        form,
        page_request.selection,
        options=WriterOptions(query.bom, query.guard),
        fields=query.fields,
        after=page_request.after,
        limit=query.limit if "limit" in query.model_fields_set else None,
    )
    return await stream_reply(
        _in_its_place(pieces, products().exports),
        media_type=form.media_type,
        headers={
            **change_ids.read_headers(change),
            "Content-Disposition": f'attachment; filename="products.{form.name}"',
        },
    )


async def _in_its_place(
    pieces: AsyncGenerator[bytes, None], places: CapacityLimiter
) -> AsyncGenerator[bytes, None]:
    with places.taken():
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
