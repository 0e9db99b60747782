"""``/api/products``: list, create, read, change, delete."""

from collections.abc import Mapping
from typing import Any

import orjson
from quart import Blueprint, Response
from quart_schema import (
    document_headers,
    document_response,
    tag_blueprint,
    validate_querystring,
    validate_request,
)

from catalog.auth.guards import caller_id, public, signed_in
from catalog.errors import AccountUnavailable, Conflict, Forbidden, PreconditionFailed
from catalog.http.conditional import cacheable_response, etag_of, if_match
from catalog.http.context import cursors, database
from catalog.http.limits import limited
from catalog.http.openapi import refuses, revalidates
from catalog.http.pagination import link_to_next, next_page
from catalog.http.rendering import json_response
from catalog.http.schemas import DEFAULT_LIMIT
from catalog.products import service
from catalog.products.schemas import (
    CreatedHeaders,
    IfMatch,
    ListQuery,
    PageHeaders,
    ProductCreate,
    ProductDeleted,
    ProductHeaders,
    ProductPage,
    ProductRead,
    ProductUpdate,
)

PATH = "/api/products"

blueprint = Blueprint("products", __name__, url_prefix=PATH)
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


@blueprint.post("")
@limited("write")
@signed_in
@refuses(AccountUnavailable)
@validate_request(ProductCreate)
@document_response(ProductRead, 201, CreatedHeaders)
async def create_product(data: ProductCreate) -> Response:
    """Offer a product."""
    product = await database().transaction(
        service.create_product,
        name=data.name,
        price=data.price,
        description=data.description,
        caller_id=caller_id(),
    )
    headers = {"Location": f"{PATH}/{product['id']}"}
    return _product_response(product, status=201, headers=headers)


@blueprint.get("/<id:product_id>")
@limited("read")
@public
@revalidates
@document_response(ProductRead, 200, ProductHeaders)
async def read_product(product_id: int) -> Response:
    """Read a product."""
    product = await database().reading(service.read_product, product_id=product_id)
    body = orjson.dumps(product)
    etag = etag_of(body, version=product["version"])
    return cacheable_response(body, etag, headers={"Cache-Control": "no-cache"})


@blueprint.patch("/<id:product_id>")
@limited("write")
@signed_in
@refuses(AccountUnavailable, Forbidden, Conflict, PreconditionFailed)
@validate_request(ProductUpdate)
@document_headers(IfMatch)
@document_response(ProductRead, 200, ProductHeaders)
async def change_product(product_id: int, data: ProductUpdate) -> Response:
    """Change one of your products; an administrator may change any."""
    product = await database().transaction(
        service.change_product,
        product_id=product_id,
        changes=data.model_dump(exclude_unset=True),
        caller_id=caller_id(),
        is_expected=_is_expected(),
    )
    return _product_response(product)


def _is_expected() -> service.IsExpected | None:
    """What the caller's ``If-Match`` says of a product."""
    tags = if_match()
    return None if tags is None else lambda product: _etag_of(product) in tags


def _etag_of(product: dict[str, Any]) -> str:
    return etag_of(orjson.dumps(product), version=product["version"])


def _product_response(
    product: dict[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return json_response(
        orjson.dumps(product),
        status=status,
        headers={"ETag": _etag_of(product), **(headers or {})},
    )


@blueprint.delete("/<id:product_id>")
@limited("write")
@signed_in
@refuses(AccountUnavailable, Forbidden, Conflict, PreconditionFailed)
@document_headers(IfMatch)
@document_response(ProductDeleted)
async def delete_product(product_id: int) -> Response:
    """Withdraw one of your products; an administrator may withdraw any."""
    await database().transaction(
        service.delete_product,
        product_id=product_id,
        caller_id=caller_id(),
        is_expected=_is_expected(),
    )
    deleted = ProductDeleted(message=f"Product {product_id} deleted.", id=product_id)
    return json_response(deleted)
