"""Responses about one product, shared by the routes and the fast path."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from catalog.concurrency.group_commit import GroupCommit
from catalog.errors import KeyInUse, KeyReused
from catalog.http.conditional import etag_of
from catalog.observability.metrics import IDEMPOTENCY, observe_position
from catalog.products.changes import change_log
from catalog.products.idempotency import key_of
from catalog.products.models import NewProduct
from catalog.products.schemas import PATH
from catalog.products.search.tokenizer import text_of
from catalog.products.service import Create, WriteResult


class RenderedProduct(NamedTuple):
    """Response with a product: its JSON, and the headers besides those of every JSON response."""

    body: bytes
    headers: dict[str, str]


def representation(product: dict[str, Any]) -> tuple[bytes, str]:
    """Return a product's JSON and its entity tag."""
    body = orjson.dumps(product)
    return body, etag_of(body, version=product["version"])


def written(write: WriteResult, headers: Mapping[str, str] | None = None) -> RenderedProduct:
    """Render the product that a write returned."""
    observe_position(write.change.position)
    body, etag = representation(write.product)
    own = {"ETag": etag, **change_log.position_headers(write.change)}
    if write.batch_position not in {None, write.change.position}:
        own[change_log.BATCH_HEADER] = str(write.batch_position)
    return RenderedProduct(body, {**own, **(headers or {})})


async def create(
    creates: GroupCommit[Create, WriteResult], offer: NewProduct, key: str | None
) -> RenderedProduct:
    """Create a product.

    Args:
        creates: the group commit of new products.
        offer: the product to create.
        key: the client's ``Idempotency-Key``, if it sent one.

    Raises:
        CatalogError: as ``GroupCommit.write``.
    """
    # Tokenized here and not in the batch, where long texts of many requests would block the event
    # loop all at once.
    offer = offer._replace(words=text_of(offer.name, offer.description))
    if key is None:
        created = await creates.write(Create(offer))
    else:
        created = await _create_once(creates, Create(offer, key_of(offer, key)))
    headers = {"Location": f"{PATH}/{created.product['id']}"}
    if created.replayed:
        headers["Idempotency-Replayed"] = "true"
    return written(created, headers)


async def _create_once(creates: GroupCommit[Create, WriteResult], wanted: Create) -> WriteResult:
    """Create a product with an idempotency key."""
    try:
        created = await creates.write(wanted, key=wanted.key and wanted.key.name)
    except KeyInUse:
        IDEMPOTENCY.labels("conflict").inc()
        raise
    except KeyReused:
        IDEMPOTENCY.labels("mismatch").inc()
        raise
    IDEMPOTENCY.labels("replayed" if created.replayed else "first").inc()
    return created
