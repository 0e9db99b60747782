"""Business rules of products: authorization, preconditions, and the changes that writes log."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.accounts import require_account, usable_accounts
from catalog.auth.models import Role
from catalog.db.columns import now, rfc3339_text
from catalog.db.statements import (
    affected_rows,
    insert_numbered_rows,
    insert_rows,
    reset_id_step,
    stored_instant,
)
from catalog.db.transactions import RetryTransaction
from catalog.errors import (
    AccountUnavailable,
    CatalogError,
    Conflict,
    FieldError,
    Forbidden,
    KeyReused,
    NotFound,
    PreconditionFailed,
)
from catalog.products import idempotency, queries
from catalog.products.changes import change_log
from catalog.products.idempotency import Done, Key
from catalog.products.models import ChangeId, ChangeType, NewProduct, Product, ProductWords
from catalog.products.search.tokenizer import text_of, tokens_of

_INSERTED_COLUMNS = (
    *("name", "description", "price", "user_id", "version", "created_at", "updated_at"),
)

IsExpected = Callable[[dict[str, Any]], bool]
"""Precondition of a write, checked on the product's current JSON members."""


class Create(NamedTuple):
    """Create request: the new product, and the idempotency key if the client sent one."""

    offer: NewProduct
    key: Key | None = None


def characters_of(create: Create) -> int:
    """Return the number of characters that a create writes: the product's text and its words."""
    name, description, _, _, _, words = create.offer
    return len(name) + len(description or "") + len(words or "")


class WriteResult(NamedTuple):
    """Outcome of a write.

    Attributes:
        product: its JSON members after the write; those before it, if it was deleted.
        change: the write's own change; the last committed one, if the write changed nothing.
        replayed: whether an earlier request with the same idempotency key did the write.
        batch_position: the last position of the transaction, which other writes may share.
    """

    product: dict[str, Any]
    change: ChangeId
    replayed: bool = False
    batch_position: int | None = None


async def create_products(
    session: AsyncSession, creates: Sequence[Create]
) -> list[WriteResult | CatalogError]:
    """Create a batch of products, each with an outcome of its own.

    Returns:
        for each create, in order, its result or its error: AccountUnavailable if the owner's
        account is disabled or deleted; KeyReused if the key was used with other content before.

    Raises:
        IntegrityError: a concurrent transaction used one of the keys or deleted one of the
            accounts; nothing is written.
    """
    owner_ids = {create.offer.owner_id for create in creates}
    accounts = await usable_accounts(session, user_ids=owner_ids)
    keys = [create.key for create in creates if create.key is not None]
    known = await idempotency.find_done(session, keys) if keys else {}
    outcomes: dict[int, WriteResult | CatalogError] = {}
    todo: list[int] = []
    for index, (offer, key) in enumerate(creates):
        if offer.owner_id not in accounts:
            outcomes[index] = AccountUnavailable()
        elif key is not None and key.name in known:
            outcomes[index] = _replay(offer, key, known[key.name])
        else:
            todo.append(index)
    if todo:
        made = await insert_products(session, [creates[index].offer for index in todo])
        done = []
        for index, product_id, position in zip(todo, made.ids, made.positions, strict=True):
            offer, key = creates[index]
            product = _rendered(offer, product_id, made.at)
            change = ChangeId(position, made.last.token)
            outcomes[index] = WriteResult(product, change, batch_position=made.last.position)
            if key is not None:
                done.append((key, Done(key.content_hash, product_id, change, made.at)))
        if done:
            await idempotency.remember(session, done)
    return [outcomes[index] for index in range(len(creates))]


def _replay(offer: NewProduct, key: Key, done: Done) -> WriteResult | CatalogError:
    """Rebuild the first response, from the content that the repeated request carries again."""
    if done.content_hash != key.content_hash:
        message = "It was used with different content before."
        return KeyReused(errors=[FieldError("header", "Idempotency-Key", message)])
    product = _rendered(offer, done.product_id, done.created_at)
    return WriteResult(product, done.change, replayed=True)


class Inserted(NamedTuple):
    """Newly inserted products.

    Attributes:
        ids: in the order of the offers, ascending.
        last: the change of the last product; the positions of all are consecutive.
        at: creation time of those whose offer had none.
    """

    ids: list[int]
    last: ChangeId
    at: datetime

    @property
    def positions(self) -> range:
        """Positions of their changes, in the order of the ids."""
        return range(self.last.position - len(self.ids) + 1, self.last.position + 1)


async def insert_products(session: AsyncSession, offers: Sequence[NewProduct]) -> Inserted:
    """Insert products and log the changes; the caller has checked the owners' accounts.

    This locks the change counter until the commit, so nothing slow may follow in the transaction.
    """
    at = now()
    ids = await insert_unlogged(session, offers, at=at)
    return Inserted(ids, await change_log.record_created(session, ids, at=at), at)


async def insert_unlogged(
    session: AsyncSession,
    offers: Sequence[NewProduct],
    *,
    at: datetime,
    on_numbered: Callable[[], None] | None = None,
) -> list[int]:
    """Insert products; the caller logs the changes in the same transaction.

    Args:
        session: the transaction.
        offers: the products to insert.
        at: creation time of those whose offer has none.
        on_numbered: called once the ids are assigned, before the words are indexed.

    Returns:
        their ids, in the order of the offers, ascending.
    """
    instant = stored_instant(session, at)
    rows = []
    for name, description, price, owner_id, created_at, _ in offers:
        then = instant if created_at is None else stored_instant(session, created_at)
        rows.append((name, description, price, owner_id, 1, then, then))
    ids = await insert_numbered_rows(session, Product, _INSERTED_COLUMNS, rows)
    if on_numbered is not None:
        on_numbered()
    tokens = []
    for product_id, offer in zip(ids, offers, strict=True):
        words = text_of(offer.name, offer.description) if offer.words is None else offer.words
        tokens.append((product_id, tokens_of(words, product_id)))
    try:
        await insert_rows(session, ProductWords, ("rowid", "words"), tokens)
    except IntegrityError as error:
        # The computed ids differ from the assigned ones: the step between ids has changed since
        # it was read, because a node joined or left the cluster. A mismatch always raises here,
        # since each of these rows needs a product that has no words yet.
        reset_id_step(session)
        raise RetryTransaction from error
    return ids


async def read_product(
    connection: AsyncConnection, *, product_id: int
) -> tuple[ChangeId, dict[str, Any]]:
    """Return the JSON members of one product, and the last change, which they include.

    Raises:
        NotFound: no product has that id; the error's headers carry the change.
    """
    change = await change_log.current_change(connection)
    try:
        return change, await _read(connection, queries.ONE, product_id)
    except NotFound as error:
        error.headers.update(change_log.position_headers(change))
        raise


async def change_product(
    session: AsyncSession,
    *,
    product_id: int,
    values: dict[str, Any],
    caller_id: int,
    is_expected: IsExpected | None = None,
) -> WriteResult:
    """Update fields of a product that the caller owns; an administrator may update any.

    If all values equal the current ones, nothing is written and the version stays.

    Args:
        session: the transaction.
        product_id: which product.
        values: the fields and their new values.
        caller_id: the caller's account.
        is_expected: the caller's precondition; None for an unconditional update.

    Raises:
        AccountUnavailable: the caller's account is disabled or deleted.
        NotFound: no product has that id.
        Forbidden: the product belongs to another account.
        PreconditionFailed: the precondition does not hold.
        Conflict: another request changed the product at the same time.
    """
    product = await _lock(session, product_id, caller_id, is_expected)
    if all(product[field] == value for field, value in values.items()):
        return WriteResult(product, await change_log.current_change(session))
    at = now()
    version = product["version"] + 1
    updating = update(Product).where(*_is_still(product))
    if await affected_rows(session, updating.values(**values, version=version, updated_at=at)) == 0:
        raise Conflict("Another request changed the product at the same time.")
    product |= {**values, "version": version, "updated_at": rfc3339_text(at)}
    if not values.keys().isdisjoint(("name", "description")):
        words = tokens_of(text_of(product["name"], product["description"]), product_id)
        found = update(ProductWords).where(ProductWords.product_id == product_id)
        await affected_rows(session, found.values(words=words))
    change = await change_log.record(session, ChangeType.UPDATED, [(product_id, version)], at=at)
    return WriteResult(product, change)


async def delete_product(
    session: AsyncSession,
    *,
    product_id: int,
    caller_id: int,
    is_expected: IsExpected | None = None,
) -> WriteResult:
    """Delete a product that the caller owns; an administrator may delete any.

    Args:
        session: the transaction.
        product_id: which product.
        caller_id: the caller's account.
        is_expected: the caller's precondition; None for an unconditional delete.

    Raises:
        AccountUnavailable: the caller's account is disabled or deleted.
        NotFound: no product has that id, or another request deleted it first.
        Forbidden: the product belongs to another account.
        PreconditionFailed: the precondition does not hold.
        Conflict: another request changed the product at the same time.
    """
    product = await _lock(session, product_id, caller_id, is_expected)
    if await affected_rows(session, delete(Product).where(*_is_still(product))) == 0:
        raise Conflict("Another request changed the product at the same time.")
    last = (product_id, product["version"])
    change = await change_log.record(session, ChangeType.DELETED, [last], at=now())
    return WriteResult(product, change)


async def delete_products_of(session: AsyncSession, user_id: int) -> None:
    """Delete all products of an account that is about to be deleted.

    The caller holds the lock on the account's row, so that no product is added meanwhile.
    """
    own = select(Product.id, Product.version).where(Product.user_id == user_id)
    rows = await session.execute(own.order_by(Product.id).with_for_update())
    last = [(row.id, row.version) for row in rows]
    if last:
        await affected_rows(session, delete(Product).where(Product.user_id == user_id))
        await change_log.record(session, ChangeType.DELETED, last, at=now())


async def _lock(
    session: AsyncSession, product_id: int, caller_id: int, is_expected: IsExpected | None
) -> dict[str, Any]:
    """Lock a product until the transaction ends, and check that the caller may change it."""
    role = await require_account(session, user_id=caller_id)
    product = await _read(session, queries.ONE_LOCKED, product_id)
    if product["user_id"] != caller_id and role is not Role.ADMIN:
        raise Forbidden("Only its owner may change or delete a product.")
    if is_expected is not None and not is_expected(product):
        raise PreconditionFailed(current=product)
    return product


async def _read(
    connection: AsyncConnection | AsyncSession, statement: Select[Any], product_id: int
) -> dict[str, Any]:
    row = (await connection.execute(statement, {"product_id": product_id})).one_or_none()
    if row is None:
        raise NotFound(f"Product {product_id} does not exist.")
    return dict(zip(queries.FIELDS, row, strict=True))


def _is_still(product: dict[str, Any]) -> tuple[ColumnElement[bool], ...]:
    """Match the version again although the row is locked: an engine may ignore the lock."""
    return Product.id == product["id"], Product.version == product["version"]


def _rendered(offer: NewProduct, product_id: int, created_at: datetime) -> dict[str, Any]:
    """Return the JSON members of a product that was just created."""
    instant = rfc3339_text(created_at)
    return {
        "id": product_id,
        "name": offer.name,
        "description": offer.description,
        "price": offer.price,
        "user_id": offer.owner_id,
        "version": 1,
        "created_at": instant,
        "updated_at": instant,
    }
