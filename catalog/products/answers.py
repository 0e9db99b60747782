"""What is answered about one product, by the framework's routes and in front of it alike."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from catalog.errors import KeyInUse, KeyReused
from catalog.http.conditional import etag_of
from catalog.observability.metrics import IDEMPOTENCY, saw_position
from catalog.products import changes
from catalog.products.idempotency import key_of
from catalog.products.models import Offer
from catalog.products.schemas import PATH
from catalog.products.service import Create, Written
from catalog.products.words import text_of
from catalog.products.writer import Writer


class Answer(NamedTuple):
    """An answer with a product: JSON, and headers besides those of every JSON."""

    body: bytes
    headers: dict[str, str]


def representation(product: dict[str, Any]) -> tuple[bytes, str]:
    """A product's JSON and the entity tag of it."""
    body = orjson.dumps(product)
    return body, etag_of(body, version=product["version"])


def written(write: Written, headers: Mapping[str, str] | None = None) -> Answer:
    """The product that a write has left behind."""
    saw_position(write.change.position)
    body, etag = representation(write.product)
    own = {"ETag": etag, **changes.position_headers(write.change)}
    if write.batch_position not in {None, write.change.position}:
        own[changes.BATCH_HEADER] = str(write.batch_position)
    return Answer(body, {**own, **(headers or {})})


async def create(creates: Writer[Create, Written], offer: Offer, key: str | None) -> Answer:
    """Offer a product.

    Args:
        creates: what writes it, with others that wait.
        offer: what is offered.
        key: the text of the client's ``Idempotency-Key``, if it sent one.

    Raises:
        CatalogError: as ``Writer.write``.
    """
    # Here and not in the batch, where long texts of many requests would be one piece of work.
    offer = offer._replace(words=text_of(offer.name, offer.description))
    if key is None:
        created = await creates.write(Create(offer))
    else:
        created = await _create_once(creates, Create(offer, key_of(offer, key)))
    headers = {"Location": f"{PATH}/{created.product['id']}"}
    if created.replayed:
        headers["Idempotency-Replayed"] = "true"
    return written(created, headers)


async def _create_once(creates: Writer[Create, Written], wanted: Create) -> Written:
    """Offer a product under a key."""
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
