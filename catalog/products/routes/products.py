"""``/api/products/<id>``: create, read, change, delete."""

from quart import Blueprint, Response
from quart_schema import (
    document_headers,
    document_querystring,
    document_response,
    tag_blueprint,
    validate_request,
)

from catalog.auth.guards import caller_id, public, signed_in
from catalog.errors import (
    AccountUnavailable,
    Conflict,
    Forbidden,
    KeyInUse,
    KeyReused,
    LinesInvalid,
    Overloaded,
    PreconditionFailed,
)
from catalog.http.conditional import cacheable_response, idempotency_key, if_match
from catalog.http.context import database
from catalog.http.limits import limited
from catalog.http.openapi import also_takes, refuses, revalidates
from catalog.http.rendering import json_response
from catalog.observability.metrics import observe_position
from catalog.products import service
from catalog.products.bulk.formats import FORMATS
from catalog.products.changes import change_log
from catalog.products.context import products
from catalog.products.models import NewProduct
from catalog.products.responses import create, representation, written
from catalog.products.routes.bulk import takes_many
from catalog.products.schemas import (
    PATH,
    BulkCreated,
    BulkQuery,
    CreatedHeaders,
    IdempotencyHeader,
    IfMatch,
    PositionHeaders,
    ProductCreate,
    ProductDeleted,
    ProductHeaders,
    ProductRead,
    ProductUpdate,
)

blueprint = Blueprint("products", __name__, url_prefix=PATH)
tag_blueprint(blueprint, ["products"])


@blueprint.post("")
@limited("write")
@signed_in
@refuses(AccountUnavailable, KeyInUse, KeyReused, LinesInvalid, Overloaded)
@also_takes(*FORMATS)
@takes_many
@validate_request(ProductCreate)
@document_querystring(BulkQuery)
@document_headers(IdempotencyHeader)
@document_response(BulkCreated, 200, PositionHeaders)
@document_response(ProductRead, 201, CreatedHeaders)
async def create_product(data: ProductCreate) -> Response:
    """Offer a product, or many at once."""
    offer = NewProduct(data.name, data.description, data.price, caller_id())
    created = await create(products().creates, offer, idempotency_key())
    return json_response(created.body, status=201, headers=created.headers)


@blueprint.get("/<id:product_id>")
@limited("read")
@public
@revalidates
@document_response(ProductRead, 200, ProductHeaders)
async def read_product(product_id: int) -> Response:
    """Read a product."""
    change, product = await database().reading(
        change_log.at_position, service.read_product, product_id=product_id
    )
    body, etag = representation(product)
    headers = {"Cache-Control": "no-cache", **change_log.position_headers(change)}
    return cacheable_response(body, etag, headers=headers)


@blueprint.patch("/<id:product_id>")
@limited("write")
@signed_in
@refuses(AccountUnavailable, Forbidden, Conflict, PreconditionFailed)
@validate_request(ProductUpdate)
@document_headers(IfMatch)
@document_response(ProductRead, 200, ProductHeaders)
async def change_product(product_id: int, data: ProductUpdate) -> Response:
    """Change one of your products; an administrator may change any."""
    changed = await database().transaction(
        service.change_product,
        product_id=product_id,
        values=data.model_dump(exclude_unset=True),
        caller_id=caller_id(),
        is_expected=_is_expected(),
    )
    answer = written(changed)
    return json_response(answer.body, headers=answer.headers)


def _is_expected() -> service.IsExpected | None:
    """Return the precondition of the ``If-Match`` header, or None without one."""
    tags = if_match()
    return None if tags is None else lambda product: representation(product)[1] in tags


@blueprint.delete("/<id:product_id>")
@limited("write")
@signed_in
@refuses(AccountUnavailable, Forbidden, Conflict, PreconditionFailed)
@document_headers(IfMatch)
@document_response(ProductDeleted, 200, PositionHeaders)
async def delete_product(product_id: int) -> Response:
    """Withdraw one of your products; an administrator may withdraw any."""
    withdrawn = await database().transaction(
        service.delete_product,
        product_id=product_id,
        caller_id=caller_id(),
        is_expected=_is_expected(),
    )
    observe_position(withdrawn.change.position)
    deleted = ProductDeleted(message=f"Product {product_id} deleted.", id=product_id)
    return json_response(deleted, headers=change_log.position_headers(withdrawn.change))
