"""Creates, updates and deletes of products in one transaction, each decided by its own rule.

The transaction takes its positions last and all at once, so that the lock on the change counter is
held once for the whole batch. Creates come first, then updates and deletes in the order given: of
two to one product, the second sees the outcome of the first.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.accounts import usable_roles
from catalog.auth.models import Role
from catalog.concurrency.turns import Turn
from catalog.db.columns import now
from catalog.db.statements import affected_rows
from catalog.errors import (
    AccountUnavailable,
    CatalogError,
    DuplicateValue,
    FieldError,
    Forbidden,
    IdempotencyKeyReused,
    NotFound,
    PreconditionFailed,
)
from catalog.products import idempotency, queries
from catalog.products.changes import change_counter, change_log
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.change_log import Logged
from catalog.products.idempotency import Done, KeyedCreate
from catalog.products.keys import KeyClaims, find_holders
from catalog.products.models import ChangeType, NewProduct, Product
from catalog.products.service import (
    insert_unlogged,
    rendered,
    require_all,
    store_updates,
    updated,
)
from catalog.products.writes.requests import (
    BatchFull,
    Create,
    Delete,
    Edit,
    LockedElsewhere,
    Outcome,
    Update,
    Write,
    WriteResult,
)

MAX_REINDEXED_BYTES = 100_000
"""Texts in UTF-8 of the products whose words a batch replaces or deletes; those of a single product
may exceed it. The words of the longest product, of 50 kB, take SQLite 50 to 100 ms, however little
a client sent to change its name, and all other writes wait meanwhile."""


async def write_products(
    session: AsyncSession, writes: Sequence[Write], *, waits: bool = False
) -> list[Outcome]:
    """Do a batch of writes, each with an outcome of its own.

    Args:
        session: the transaction.
        writes: the writes.
        waits: whether to wait for products that other transactions have locked. Otherwise the
            outcome of their edits is ``LockedElsewhere``, and nothing holds up the other writes.
            In either case the outcome of an edit may be ``BatchFull``.

    Returns:
        for each write, in order, its result or its error: AccountUnavailable if the caller's
        account is disabled or deleted; IdempotencyKeyReused if the idempotency key was used with
        other content before; DuplicateValue if another product of the owner has the product's key;
        NotFound if no product has the id; Forbidden if the product belongs to another account;
        PreconditionFailed if the precondition does not hold.

    Raises:
        IntegrityError: a concurrent transaction used one of the keys or deleted one of the
            accounts; nothing is written.
        Conflict: another transaction changed one of the products at the same time; nothing is
            written.
    """
    batch = _Batch(session, writes)
    await batch.check_accounts()
    # Creates first: they wait for the rows of their owners, and must not hold a product meanwhile
    # that the deletion of such an account waits for.
    await batch.create()
    await batch.edit(waits=waits)
    return await batch.log()


@dataclass(slots=True)
class _Decision:
    """Write that succeeds.

    Attributes:
        index: its index in the batch.
        kind: the kind of its change; None if it changes nothing.
        product: the product after it, or before its delete.
    """

    index: int
    kind: ChangeType | None
    product: dict[str, Any]


class _Batch:
    """Batch of writes in progress."""

    def __init__(self, session: AsyncSession, writes: Sequence[Write]) -> None:
        self._session = session
        self._writes = writes
        self._at = now()
        self._roles: Mapping[int, Role] = {}
        # By the indexes of the writes.
        self._outcomes: dict[int, Outcome] = {}
        # In the order of the positions.
        self._decisions: list[_Decision] = []

    def _undecided(self) -> list[tuple[int, Write]]:
        writes = enumerate(self._writes)
        return [(index, write) for index, write in writes if index not in self._outcomes]

    async def check_accounts(self) -> None:
        """Refuse the writes of callers whose accounts are disabled or deleted."""
        callers = {write.caller_id for write in self._writes}
        self._roles = await usable_roles(self._session, user_ids=callers)
        for index, write in self._undecided():
            if write.caller_id not in self._roles:
                self._outcomes[index] = AccountUnavailable()

    async def create(self) -> None:
        """Insert the products, except those that were created under their key before."""
        creates = [(index, each) for index, each in self._undecided() if isinstance(each, Create)]
        keyed = [each.idempotency for _, each in creates if each.idempotency is not None]
        known = await idempotency.find_done(self._session, keyed) if keyed else {}
        claimed = {
            (new_product.owner_id, new_product.key)
            for _, (new_product, _) in creates
            if new_product.key
        }
        claims = KeyClaims(await find_holders(self._session, claimed))
        todo: list[tuple[int, NewProduct]] = []
        for index, (new_product, keyed_create) in creates:
            if keyed_create is not None and keyed_create.name in known:
                done = known[keyed_create.name]
                self._outcomes[index] = _replay(new_product, keyed_create, done)
                continue
            try:
                claims.claim(new_product.owner_id, new_product.key, None)
            except DuplicateValue as refusal:
                self._outcomes[index] = refusal
            else:
                todo.append((index, new_product))
        if not todo:
            return
        ids = await insert_unlogged(
            self._session, [new_product for _, new_product in todo], at=self._at
        )
        for (index, new_product), product_id in zip(todo, ids, strict=True):
            product = rendered(new_product, product_id, self._at)
            self._decisions.append(_Decision(index, ChangeType.CREATED, product))

    async def edit(self, *, waits: bool) -> None:
        """Decide the updates and deletes one after the other, then store the outcome."""
        edits = [(index, each) for index, each in self._undecided() if not isinstance(each, Create)]
        if not edits:
            return
        products = await self._lock({edit.product_id for _, edit in edits}, waits=waits)
        claims = await self._key_claims(edits, products)
        deleted: list[int] = []
        changed: dict[int, set[str]] = defaultdict(set)
        reindexed: dict[int, int] = {}
        turn = Turn()
        for index, edit in edits:
            # Each may compute the entity tag of a long product.
            await turn.yield_if_over()
            product_id = edit.product_id
            if product_id not in products:
                self._outcomes[index] = LockedElsewhere()
                continue
            # Before it is decided: an edit that is put off must not have claimed a key.
            size = _reindexed_bytes(edit, products[product_id])
            others = sum(reindexed.values()) - reindexed.get(product_id, 0)
            if size and others and others + size > MAX_REINDEXED_BYTES:
                self._outcomes[index] = BatchFull(size)
                continue
            try:
                decision = self._decide(index, edit, products[product_id], claims)
            except CatalogError as refusal:
                self._outcomes[index] = refusal
                continue
            self._decisions.append(decision)
            if size and decision.kind is not None:
                reindexed[product_id] = size
            if isinstance(edit, Delete):
                products[product_id] = None
                deleted.append(product_id)
            elif decision.kind is ChangeType.UPDATED:
                products[product_id] = decision.product
                changed[product_id] |= edit.values.keys()
        if deleted:
            gone = delete(Product).where(Product.id.in_(deleted))
            require_all(await affected_rows(self._session, gone), deleted)
        stored = (
            (product, changed[product["id"]])
            for product in products.values()
            if product is not None and product["id"] in changed
        )
        await store_updates(self._session, stored, at=self._at)

    def _decide(
        self, index: int, edit: Edit, product: dict[str, Any] | None, claims: KeyClaims
    ) -> _Decision:
        """Decide an edit of a product, None if it does not exist.

        Raises:
            CatalogError: the edit is refused.
        """
        product = self._admitted(edit, product)
        if isinstance(edit, Delete):
            return _Decision(index, ChangeType.DELETED, product)
        claims.claim(product["user_id"], edit.values.get("key"), edit.product_id)
        if all(product[field] == value for field, value in edit.values.items()):
            return _Decision(index, None, product)
        after = updated(product, edit.values, self._at)
        return _Decision(index, ChangeType.UPDATED, after)

    async def _key_claims(
        self, edits: Sequence[tuple[int, Edit]], products: Mapping[int, dict[str, Any] | None]
    ) -> KeyClaims:
        claimed = set()
        for _, edit in edits:
            product = products.get(edit.product_id)
            key = edit.values.get("key") if isinstance(edit, Update) else None
            if product is not None and key is not None:
                claimed.add((product["user_id"], key))
        return KeyClaims(await find_holders(self._session, claimed))

    async def _lock(
        self, product_ids: Collection[int], *, waits: bool
    ) -> dict[int, dict[str, Any] | None]:
        """Lock products until the transaction ends.

        Returns:
            their members by id, None for those that do not exist; without those that are locked
            elsewhere.
        """
        # In the order of their ids, so that two batches do not deadlock.
        ids = sorted(product_ids)
        connection = await self._session.connection()
        statement = queries.LOCK_WAITING if waits else queries.LOCK_SKIPPING
        rows = await connection.execute(statement, {"product_ids": ids})
        products: dict[int, dict[str, Any] | None] = {
            row[0]: queries.members_of(row) for row in rows
        }
        missing = [each for each in ids if each not in products]
        if missing:
            existing: set[int] = set()
            if not waits:
                found = await connection.execute(queries.SOME_IDS, {"product_ids": missing})
                existing = set(found.scalars())
            products |= {each: None for each in missing if each not in existing}
        return products

    def _admitted(self, edit: Edit, product: dict[str, Any] | None) -> dict[str, Any]:
        """Return the product of an edit that may be done."""
        if product is None:
            raise NotFound(f"Product {edit.product_id} does not exist.")
        is_admin = edit.may_administer and self._roles[edit.caller_id] is Role.ADMIN
        if product["user_id"] != edit.caller_id and not is_admin:
            raise Forbidden("Only its owner may change or delete a product.")
        if edit.precondition is not None and not edit.precondition(product):
            raise PreconditionFailed(current=product)
        return product

    async def log(self) -> list[Outcome]:
        """Log the changes, which takes the positions, and return all outcomes."""
        changes = [
            Logged(each.kind, each.product["id"], each.product["version"])
            for each in self._decisions
            if each.kind is not None
        ]
        latest: dict[int, ChangeId] = {}
        before = ChangeId(0)
        if len(changes) < len(self._decisions):
            # Read before this transaction takes positions. The products are locked, so they
            # include it.
            before = await change_counter.current_change(self._session)
        last = before
        if changes:
            last = await change_log.record_all(self._session, changes, at=self._at)
        position = last.position - len(changes)
        done = []
        for decision in self._decisions:
            index, product = decision.index, decision.product
            product_id = product["id"]
            if decision.kind is None:
                self._outcomes[index] = WriteResult(product, latest.get(product_id, before))
                continue
            position += 1
            change = latest[product_id] = ChangeId(position, last.token)
            self._outcomes[index] = WriteResult(product, change, batch_position=last.position)
            write = self._writes[index]
            if isinstance(write, Create) and write.idempotency is not None:
                content_hash = write.idempotency.content_hash
                made = Done(content_hash, product_id, change, self._at)
                done.append((write.idempotency, made))
        if done:
            await idempotency.remember(self._session, done)
        return [self._outcomes[index] for index in range(len(self._writes))]


def _reindexed_bytes(edit: Edit, product: dict[str, Any] | None) -> int:
    """Return the size of a product's texts if an edit may replace or delete its words, else 0."""
    if product is None:
        return 0
    values: Mapping[str, Any] = {} if isinstance(edit, Delete) else edit.values
    if isinstance(edit, Update) and values.keys().isdisjoint(queries.SEARCHED):
        return 0
    after = {**product, **values}
    return queries.text_bytes(*(after[field] for field in queries.SEARCHED))


def _replay(
    new_product: NewProduct, keyed_create: KeyedCreate, done: Done
) -> WriteResult | CatalogError:
    """Rebuild the first response, from the content that the repeated request carries again."""
    if done.content_hash != keyed_create.content_hash:
        rule = "was used with different content before"
        return IdempotencyKeyReused(errors=[FieldError("header", "Idempotency-Key", rule)])
    product = rendered(new_product, done.product_id, done.created_at)
    return WriteResult(product, done.change, replayed=True)
