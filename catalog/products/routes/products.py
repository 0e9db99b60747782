"""``/api/products`` and ``/api/products/<id>``: create, read, change, delete."""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from quart_schema import (
    document_headers,
    document_querystring,
    document_response,
    tag_blueprint,
)

from catalog.auth.guards import caller_id, may_administer, public, signed_in
from catalog.errors import (
    AccountUnavailable,
    Conflict,
    DuplicateValue,
    FieldError,
    Forbidden,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidRequest,
    LinesInvalid,
    Overloaded,
    PreconditionFailed,
)
from catalog.http.adapter import Routes
from catalog.http.idempotency_key import idempotency_key
from catalog.http.limits import limited
from catalog.http.openapi import also_takes, refuses, revalidates
from catalog.http.replies.conditional import precondition, representation, revalidated
from catalog.http.replies.reply import Reply, json_reply
from catalog.http.request import current_request
from catalog.http.validation import json_body, validated_query
from catalog.products.bulk.formats import FORMATS, IMPORTED
from catalog.products.bulk.schemas import BulkCreated, BulkQuery
from catalog.products.changes import change_ids
from catalog.products.context import products
from catalog.products.models import NewProduct
from catalog.products.routes.bulk import import_products
from catalog.products.schemas import (
    PATH,
    CreatedHeaders,
    IdempotencyHeader,
    PositionHeaders,
    Preconditions,
    ProductCreate,
    ProductDeleted,
    ProductHeaders,
    ProductRead,
    ProductUpdate,
)
from catalog.products.writes import Delete, Precondition, Update, WriteResult

blueprint = Routes("products", __name__, url_prefix=PATH)
tag_blueprint(blueprint, ["products"])

_FOR_MANY = "is only for bulk requests"
_DEFAULTS = BulkQuery()


def takes_many(view: Callable[..., Awaitable[Reply]]) -> Callable[..., Awaitable[Reply]]:
    """Extend a view that creates one product to accept bulk requests, as any of ``IMPORTED``."""

    @wraps(view)
    async def create(*args: Any, **kwargs: Any) -> Reply:
        request = current_request()
        # Most requests create one product and have no query; parsing an empty one takes 6 us.
        query = validated_query(BulkQuery, request.query) if request.query_string else _DEFAULTS
        form = IMPORTED.get(request.content_type[0])
        if form is not None:
            return await import_products(form, query)
        if query is not _DEFAULTS:
            _require_one(query)
        return await view(*args, **kwargs)

    return create


def _require_one(query: BulkQuery) -> None:
    for name in ("dry_run", "mode"):
        if getattr(query, name) != getattr(_DEFAULTS, name):
            raise InvalidRequest(errors=[FieldError("parameter", name, _FOR_MANY)])


@blueprint.post("")
@limited("write")
@signed_in
@refuses(
    AccountUnavailable,
    DuplicateValue,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    LinesInvalid,
    Overloaded,
)
@also_takes(*FORMATS)
@takes_many
@json_body(ProductCreate, besides=IMPORTED)
@document_querystring(BulkQuery)
@document_headers(IdempotencyHeader)
@document_response(BulkCreated, 200, PositionHeaders)
@document_response(ProductRead, 201, CreatedHeaders)
async def create_product(data: ProductCreate) -> Reply:
    """Create a product, or many at once.

    One as JSON; with `Idempotency-Key`, a repeat within 24 hours creates nothing and gets the first
    response. Any number as NDJSON or CSV, which is read as a stream: invalid lines are reported and
    the others created, or with `atomic` all or none.
    """
    new_product = NewProduct(data.name, data.description, data.price, caller_id(), key=data.key)
    created = await products().writes.create(new_product, idempotency_key())
    headers = {"Location": f"{current_request().prefix}{PATH}/{created.product['id']}"}
    if created.replayed:
        headers["Idempotency-Replayed"] = "true"
    return _written(created, status=201, headers=headers)


@blueprint.get("/<id:product_id>")
@limited("read")
@public
@revalidates
@document_response(ProductRead, 200, ProductHeaders)
async def read_product(product_id: int) -> Reply:
    """Read a product.

    Public; send the `ETag` as `If-Match` to change exactly this version.
    """
    return revalidated(await products().product_reader.read(product_id))


@blueprint.patch("/<id:product_id>")
@limited("write")
@signed_in
@refuses(AccountUnavailable, Forbidden, Conflict, DuplicateValue, PreconditionFailed)
@json_body(ProductUpdate)
@document_headers(Preconditions)
@document_response(ProductRead, 200, ProductHeaders)
async def change_product(product_id: int, data: ProductUpdate) -> Reply:
    """Change one of your products; an administrator may change any.

    A merge patch (RFC 7396): members left out stay as they are. With `If-Match`, a product that has
    changed in the meantime is 412, with its present state as `current`.
    """
    values = data.model_dump(exclude_unset=True)
    update = Update(product_id, caller_id(), values, _product_precondition(), may_administer())
    return _written(await _edited(update))


async def _edited(edit: Delete | Update) -> WriteResult:
    """Do an edit; the refusal of its precondition gets the entity tag of the current product.

    Computed here, because a batch holds the locks of its products.
    """
    try:
        return await products().writes.edit(edit)
    except PreconditionFailed as refusal:
        if refusal.current is not None:
            refusal.headers["ETag"] = representation(refusal.current)[1]
        raise


def _product_precondition() -> Precondition | None:
    """Return the precondition of the request's headers, or None without one."""
    holds = precondition()
    return None if holds is None else lambda product: holds(representation(product)[1])


@blueprint.delete("/<id:product_id>")
@limited("write")
@signed_in
@refuses(AccountUnavailable, Forbidden, Conflict, PreconditionFailed)
@document_headers(Preconditions)
@document_response(ProductDeleted, 200, PositionHeaders)
async def delete_product(product_id: int) -> Reply:
    """Delete one of your products; an administrator may delete any.

    With `If-Match`, only if it has not changed in the meantime. Its id is never used again.
    """
    delete = Delete(product_id, caller_id(), _product_precondition(), may_administer())
    deletion = await _edited(delete)
    deleted = ProductDeleted(message=f"Product {product_id} deleted.", id=product_id)
    return json_reply(deleted, headers=_headers_of(deletion))


def _written(
    write: WriteResult, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Reply:
    """Return the product that a write returned, and the position of its change."""
    body, etag = representation(write.product)
    own = {"ETag": etag, **_headers_of(write)}
    return json_reply(body, status=status, headers={**own, **(headers or {})})


def _headers_of(write: WriteResult) -> dict[str, str]:
    """Return the headers with a write's position, and with that of its batch if it is another."""
    headers = change_ids.position_headers(write.change)
    if write.batch_position not in {None, write.change.position}:
        headers[change_ids.BATCH_HEADER] = str(write.batch_position)
    return headers
