"""``/api/products`` and ``/api/products/my``: pages of products, or all of them at once."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from quart import Blueprint, Response, request
from quart_schema import document_response, tag_blueprint, validate_querystring

from catalog.auth.guards import caller_id, public, signed_in
from catalog.errors import FieldError, InvalidRequest, Overloaded
from catalog.http.conditional import cacheable_response, etag_of
from catalog.http.context import cursors, database
from catalog.http.limits import limited
from catalog.http.negotiation import offers, wanted
from catalog.http.openapi import refuses, revalidates
from catalog.http.pagination import Place, link_headers
from catalog.http.streaming import stream_response
from catalog.products import changes, service, transfer
from catalog.products.context import products
from catalog.products.formats import FORMATS, Format
from catalog.products.queries import Position, Selection
from catalog.products.schemas import (
    ListQuery,
    MyListQuery,
    PageHeaders,
    ProductField,
    ProductPage,
)
from catalog.products.service import Page
from catalog.products.transfer import Places

PATH = "/api/products"

blueprint = Blueprint("product_lists", __name__, url_prefix=PATH)
tag_blueprint(blueprint, ["products"])


@blueprint.get("")
@limited("read")
@public
@refuses(Overloaded)
@revalidates
@offers(*FORMATS)
@validate_querystring(ListQuery)
@document_response(ProductPage, 200, PageHeaders)
async def list_products(query_args: ListQuery) -> Response:
    """List everyone's products, newest first unless told."""
    selection = Selection.of(query_args, user_id=query_args.user_id)
    return await _list(PATH, query_args, selection, bound_to=selection.bound_to(PATH))


@blueprint.get("/my")
@limited("read")
@signed_in
@refuses(Overloaded)
@revalidates
@offers(*FORMATS)
@validate_querystring(MyListQuery)
@document_response(ProductPage, 200, PageHeaders)
async def list_my_products(query_args: MyListQuery) -> Response:
    """List your own products, newest first unless told."""
    path = f"{PATH}/my"
    # Bound to the list and not to the caller, to whom it shows only their own anyway.
    bound_to = Selection.of(query_args, user_id=None).bound_to(path)
    selection = Selection.of(query_args, user_id=caller_id())
    return await _list(path, query_args, selection, bound_to=bound_to)


async def _list(path: str, query: MyListQuery, selection: Selection, *, bound_to: str) -> Response:
    place = Place(cursors(), query.cursor, path=path, bound_to=bound_to)
    form = FORMATS.get(wanted())
    if form is None:
        return await _page(query, selection, place)
    if query.total:
        raise InvalidRequest(errors=[FieldError("parameter", "total", "It is for pages.")])
    return await _export(form, query, selection, place)


async def _page(query: MyListQuery, selection: Selection, place: Place) -> Response:
    page = await database().reading(
        service.list_products,
        selection=selection,
        after=_after(place),
        limit=query.limit,
        count=query.total,
    )
    next_url = place.next_url(page.last, request.args)
    headers = {**_headers(page.position), **link_headers(next_url)}
    body = orjson.dumps(_rendered(page, query.fields, next_url))
    return cacheable_response(body, etag_of(body), headers=headers)


async def _export(form: Format, query: MyListQuery, selection: Selection, place: Place) -> Response:
    # Before the products, so that who follows from here misses nothing.
    position = await database().reading(changes.current_position)
    pieces = transfer.export_products(
        database(),
        form,
        selection,
        fields=query.fields,
        after=_after(place),
        limit=query.limit if "limit" in query.model_fields_set else None,
    )
    return await stream_response(
        _in_its_place(pieces, products().exports),
        media_type=form.media_type,
        headers={
            **_headers(position),
            "Content-Disposition": f'attachment; filename="products.{form.name}"',
        },
    )


async def _in_its_place(
    pieces: AsyncGenerator[bytes, None], places: Places
) -> AsyncGenerator[bytes, None]:
    with places.taken():
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece


def _after(place: Place) -> Position | None:
    return tuple(place.after) if place.after else None


def _headers(position: int) -> dict[str, str]:
    return {"Cache-Control": "no-cache", "Vary": "Accept", changes.HEADER: str(position)}


def _rendered(
    page: Page, fields: tuple[ProductField, ...] | None, next_url: str | None
) -> dict[str, Any]:
    products = page.products
    if fields is not None:
        products = [{name: product[name] for name in fields} for product in products]
    rendered: dict[str, Any] = {"products": products, "next": next_url}
    return rendered if page.total is None else {**rendered, "total": page.total}
