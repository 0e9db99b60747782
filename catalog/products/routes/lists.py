"""``/api/products`` and ``/api/products/my``: pages of products."""

import orjson
from quart import Blueprint, Response
from quart_schema import document_response, tag_blueprint, validate_querystring

from catalog.auth.guards import caller_id, public, signed_in
from catalog.http.conditional import cacheable_response, etag_of
from catalog.http.context import cursors, database
from catalog.http.limits import limited
from catalog.http.openapi import revalidates
from catalog.http.pagination import link_to_next, next_page
from catalog.http.schemas import DEFAULT_LIMIT
from catalog.products import service
from catalog.products.schemas import ListQuery, PageHeaders, ProductPage

PATH = "/api/products"

blueprint = Blueprint("product_lists", __name__, url_prefix=PATH)
tag_blueprint(blueprint, ["products"])


@blueprint.get("")
@limited("read")
@public
@revalidates
@validate_querystring(ListQuery)
@document_response(ProductPage, 200, PageHeaders)
async def list_products(query_args: ListQuery) -> Response:
    """List everyone's products, newest first."""
    return await _page(PATH, query_args, owner_id=None)


@blueprint.get("/my")
@limited("read")
@signed_in
@revalidates
@validate_querystring(ListQuery)
@document_response(ProductPage, 200, PageHeaders)
async def list_my_products(query_args: ListQuery) -> Response:
    """List your own products, newest first."""
    return await _page(f"{PATH}/my", query_args, owner_id=caller_id())


async def _page(path: str, query: ListQuery, *, owner_id: int | None) -> Response:
    # The order is part of what a cursor is bound to, so that it means nothing in another one.
    bound_to = f"{path}?sort=-id"
    before_id = None
    if query.cursor is not None:
        before_id = int(cursors().decode(query.cursor, bound_to=bound_to)[0])
    page = await database().reading(
        service.list_products, limit=query.limit, before_id=before_id, owner_id=owner_id
    )
    next_url = None
    if page.last_id is not None:
        cursor = cursors().encode([page.last_id], bound_to=bound_to)
        limit = query.limit if query.limit != DEFAULT_LIMIT else None
        next_url = next_page(path, cursor, limit=limit)
    headers = {"Cache-Control": "no-cache"}
    if next_url is not None:
        headers["Link"] = link_to_next(next_url)
    body = orjson.dumps({"products": page.products, "next": next_url})
    return cacheable_response(body, etag_of(body), headers=headers)
