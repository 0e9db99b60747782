"""Inserts and updates of products, and the deletion of an account's products."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.concurrency.turns import Turn
from catalog.db.columns import now, rfc3339_text
from catalog.db.statements import (
    affected_rows,
    insert_numbered_rows,
    insert_rows,
    reset_id_step,
    stored_instant,
    update_rows,
)
from catalog.db.transactions import RetryTransaction
from catalog.errors import Conflict
from catalog.products import queries
from catalog.products.changes import change_log
from catalog.products.changes.change_ids import ChangeId
from catalog.products.models import ChangeType, NewProduct, Product, ProductWords
from catalog.products.search.tokenizer import own_token, text_in_turns, tokens_of

_INSERTED_COLUMNS = (
    *("name", "description", "price", "client_key", "user_id", "version"),
    *("created_at", "updated_at"),
)

MAX_DELETED = 1000
"""Products of an account that are deleted in one transaction: all other writers wait for it on
SQLite, and at its end on the other engines."""

MAX_DELETED_BYTES = 250_000
"""Their texts in UTF-8; a single product may exceed it. The words of the longest take SQLite 20
to 50 ms."""

_COLUMNS = {"key": "client_key"}
"""Names of columns, where they are not those of the fields."""


class Inserted(NamedTuple):
    """Newly inserted products.

    Attributes:
        ids: in the order of the new products, ascending.
        last: the change of the last product; the positions of all are consecutive.
        at: creation time of products that have none.
    """

    ids: list[int]
    last: ChangeId
    at: datetime


async def insert_products(session: AsyncSession, new_products: Sequence[NewProduct]) -> Inserted:
    """Insert products and log the changes; the caller has checked the owners' accounts.

    This locks the change counter until the commit, so nothing slow may follow in the transaction.
    """
    at = now()
    ids = await insert_unlogged(session, new_products, at=at)
    return Inserted(ids, await change_log.record_created(session, ids, at=at), at)


async def insert_unlogged(
    session: AsyncSession,
    new_products: Sequence[NewProduct],
    *,
    at: datetime,
    on_numbered: Callable[[], None] | None = None,
) -> list[int]:
    """Insert products; the caller logs the changes in the same transaction.

    Args:
        session: the transaction.
        new_products: the products to insert.
        at: creation time of products that have none.
        on_numbered: called once the ids are assigned, before the words are indexed.

    Returns:
        their ids, in the order of the new products, ascending.
    """
    instant = stored_instant(session, at)
    rows = []
    for name, description, price, owner_id, created_at, _, key in new_products:
        then = instant if created_at is None else stored_instant(session, created_at)
        rows.append((name, description, price, key, owner_id, 1, then, then))
    ids = await insert_numbered_rows(session, Product, _INSERTED_COLUMNS, rows)
    if on_numbered is not None:
        on_numbered()
    texts = [each.words for each in new_products if each.words is not None]
    if len(texts) < len(new_products):
        texts = await _words_of(new_products)
    tokens = [
        (product_id, tokens_of(text, product_id))
        for product_id, text in zip(ids, texts, strict=True)
    ]
    if tokens:
        product_id, last = tokens[-1]
        tokens[-1] = (product_id, f"{last} {own_token(product_id, 1)}")
    try:
        await insert_rows(session, ProductWords, ("rowid", "words"), tokens)
    except IntegrityError as error:
        # The computed ids differ from the assigned ones: the step between ids has changed since
        # it was read, because a node joined or left the cluster. A mismatch always raises here,
        # since each of these rows needs a product that has no words yet.
        reset_id_step(session)
        raise RetryTransaction from error
    return ids


async def _words_of(new_products: Sequence[NewProduct]) -> list[str]:
    """Return the words of products, also of those that have none yet."""
    turn = Turn()
    texts = []
    for each in new_products:
        text = each.words
        texts.append(await text_in_turns(each.name, each.description) if text is None else text)
        await turn.yield_if_over()
    return texts


async def delete_products_of(session: AsyncSession, user_id: int) -> bool:
    """Delete products of an account that is about to be deleted, as many as a transaction should.

    The caller holds the lock on the account's row, so that no product is added meanwhile.

    Returns:
        whether that were all.
    """
    own = select(Product.id, Product.version, queries.TEXT_BYTES).where(Product.user_id == user_id)
    some = own.order_by(Product.id).limit(MAX_DELETED).with_for_update()
    rows = (await session.execute(some)).all()
    size = 0
    last: list[tuple[int, int]] = []
    for product_id, version, text_bytes in rows:
        size += text_bytes
        if last and size > MAX_DELETED_BYTES:
            break
        last.append((product_id, version))
    if last:
        first = Product.id <= last[-1][0]
        await affected_rows(session, delete(Product).where(Product.user_id == user_id, first))
        await change_log.record(session, ChangeType.DELETED, last, at=now())
    return len(last) == len(rows) < MAX_DELETED


async def store_updates(
    session: AsyncSession, changed: Iterable[tuple[dict[str, Any], set[str]]], *, at: datetime
) -> None:
    """Store updated products, those with the same changed fields in one statement.

    Args:
        session: the transaction, which has locked the products.
        changed: the products' members after the update, and the names of the changed ones besides
            the version and the time.
        at: the time of the update.

    Raises:
        Conflict: another transaction changed or deleted one of the products at the same time.
    """
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    reworded = []
    for product, names in changed:
        alike[(*sorted(names), "version")].append(product)
        if not names.isdisjoint(queries.SEARCHED):
            reworded.append(product)
    instant = stored_instant(session, at)
    for fields, products in alike.items():
        columns = ("id", "updated_at", *(_COLUMNS.get(field, field) for field in fields))
        rows = ((each["id"], instant, *(each[field] for field in fields)) for each in products)
        require_all(await update_rows(session, Product, columns, rows), products)
    await update_rows(session, ProductWords, ("rowid", "words"), await _tokenized(reworded))


def require_all(found: int, products: Sequence[object]) -> None:
    """Check that a statement has found all products, although they are locked.

    Raises:
        Conflict: it has not, because the engine ignored a lock.
    """
    if found != len(products):
        raise Conflict("Another request changed the product at the same time.")


async def _tokenized(products: Sequence[dict[str, Any]]) -> list[tuple[int, str]]:
    """Return the ids and the words of products; long texts do not block the event loop."""
    turn = Turn()
    words = []
    for each in products:
        text = await text_in_turns(each["name"], each["description"])
        tokens = tokens_of(text, each["id"])
        if each is products[-1]:
            tokens = f"{tokens} {own_token(each['id'], each['version'])}"
        words.append((each["id"], tokens))
        await turn.yield_if_over()
    return words


def rendered(new_product: NewProduct, product_id: int, created_at: datetime) -> dict[str, Any]:
    """Return the JSON members of a product that was just created."""
    instant = rfc3339_text(created_at)
    return {
        "id": product_id,
        "name": new_product.name,
        "description": new_product.description,
        "price": new_product.price,
        "key": new_product.key,
        "user_id": new_product.owner_id,
        "version": 1,
        "created_at": instant,
        "updated_at": instant,
    }


def updated(product: dict[str, Any], values: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """Return the JSON members of a product after an update that changes it."""
    own = {"version": product["version"] + 1, "updated_at": rfc3339_text(at)}
    return {**product, **values, **own}
