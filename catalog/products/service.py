"""The rules of products: who may do what to which."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.models import Role
from catalog.auth.service import require_account, usable_accounts
from catalog.db.columns import now, rfc3339_text
from catalog.db.database import RetryTransaction
from catalog.db.statements import (
    affected_rows,
    insert_numbered_rows,
    insert_rows,
    reset_id_step,
    stored_instant,
)
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
"""Tells whether a product, ready to render, is as the caller thinks."""


class Create(NamedTuple):
    """A create that a client asks for, and its key if it sent one."""

    offer: NewProduct
    key: Key | None = None


def characters_of(create: Create) -> int:
    """Tell how much text a create writes: the product's and its words."""
    name, description, _, _, _, words = create.offer
    return len(name) + len(description or "") + len(words or "")


class WriteResult(NamedTuple):
    """What a write has done.

    Attributes:
        product: as it is now, ready to render; as it was, if it was deleted.
        change: its own; the last one, if it has changed nothing.
        replayed: whether an earlier request with the same key has done it.
        batch_position: the last one of a transaction that others may have shared.
    """

    product: dict[str, Any]
    change: ChangeId
    replayed: bool = False
    batch_position: int | None = None


async def create_products(
    session: AsyncSession, creates: Sequence[Create]
) -> list[WriteResult | CatalogError]:
    """Offer products, each as if it came alone.

    Returns:
        for each, in their order, what was done or why not: AccountUnavailable, because its
        owner's account is disabled or gone; KeyReused, because its key came with other content.

    Raises:
        IntegrityError: another transaction used one of the keys at the same time, or removed one
            of the accounts; nothing is done.
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
    """The first answer once more, made of the same content."""
    if done.content_hash != key.content_hash:
        message = "It came with other content before."
        return KeyReused(errors=[FieldError("header", "Idempotency-Key", message)])
    product = _rendered(offer, done.product_id, done.created_at)
    return WriteResult(product, done.change, replayed=True)


class Inserted(NamedTuple):
    """New products.

    Attributes:
        ids: in the order of the offers, ascending.
        last: the last one's creation; their positions are consecutive.
        at: when they were created, where the offer did not say.
    """

    ids: list[int]
    last: ChangeId
    at: datetime

    @property
    def positions(self) -> range:
        """Of their creations."""
        return range(self.last.position - len(self.ids) + 1, self.last.position + 1)


async def insert_products(session: AsyncSession, offers: Sequence[NewProduct]) -> Inserted:
    """Write products and the log of it, for owners whose accounts have been looked at.

    It takes the positions, so nothing slow may come after it in the transaction.
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
    """Write products; the log of it is to follow in the same transaction.

    Args:
        session: the transaction.
        offers: what to write.
        at: when they are created, where the offer does not say.
        on_numbered: is called when they have their ids, and there is still much to do.

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
        # The ids are not those that the rows got, because the step between ids has changed since
        # it was read: a node has joined the cluster or left it. It cannot go unnoticed, since each
        # of these rows needs a product that has none yet.
        reset_id_step(session)
        raise RetryTransaction from error
    return ids


async def read_product(
    connection: AsyncConnection | AsyncSession, *, product_id: int
) -> dict[str, Any]:
    """One product, ready to render.

    Raises:
        NotFound: there is none of that id.
    """
    return await _read(connection, queries.ONE, product_id)


async def change_product(
    session: AsyncSession,
    *,
    product_id: int,
    values: dict[str, Any],
    caller_id: int,
    is_expected: IsExpected | None = None,
) -> WriteResult:
    """Change some fields of a product that the caller owns; an administrator may change any.

    A change to what is there already is none, and leaves the version as it is.

    Args:
        session: the transaction.
        product_id: which product.
        values: the fields and their new values.
        caller_id: whose account asks.
        is_expected: whether the product is as the caller thinks; None when it may be anything.

    Raises:
        AccountUnavailable: the caller's account is disabled or gone.
        NotFound: there is no such product.
        Forbidden: it belongs to someone else.
        PreconditionFailed: it is not as expected.
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
    """Withdraw a product that the caller owns; an administrator may withdraw any.

    Args:
        session: the transaction.
        product_id: which product.
        caller_id: whose account asks.
        is_expected: whether the product is as the caller thinks; None when it may be anything.

    Raises:
        AccountUnavailable: the caller's account is disabled or gone.
        NotFound: there is no such product, or another request withdrew it first.
        Forbidden: it belongs to someone else.
        PreconditionFailed: it is not as expected.
    """
    product = await _lock(session, product_id, caller_id, is_expected)
    if await affected_rows(session, delete(Product).where(*_is_still(product))) == 0:
        raise Conflict("Another request changed the product at the same time.")
    last = (product_id, product["version"])
    change = await change_log.record(session, ChangeType.DELETED, [last], at=now())
    return WriteResult(product, change)


async def delete_products_of(session: AsyncSession, user_id: int) -> None:
    """Withdraw all that an account offers, before the account goes.

    Its row must be locked, so that nothing is added meanwhile.
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
    """The product, if the caller may change it now; nobody else can until the transaction ends."""
    role = await require_account(session, user_id=caller_id)
    product = await _read(session, queries.ONE_LOCKED, product_id)
    if product["user_id"] != caller_id and role is not Role.ADMIN:
        raise Forbidden("Only its owner may change or withdraw a product.")
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
    """The version once more, although the row is locked: an engine may ignore the lock."""
    return Product.id == product["id"], Product.version == product["version"]


def _rendered(offer: NewProduct, product_id: int, created_at: datetime) -> dict[str, Any]:
    """A product that has just been created."""
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
