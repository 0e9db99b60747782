"""Upserts: lines of an import that change the products they name, and create the others.

A line names one of the owner's products by ``id``, else by ``key``. The lines of a transaction are
decided one after the other, on products that are locked, and stored in few statements.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.concurrency.turns import Turn
from catalog.db.columns import now
from catalog.db.deadlines import renew_deadline
from catalog.db.statements import affected_rows
from catalog.db.transactions import RetryTransaction
from catalog.errors import (
    CatalogError,
    DuplicateValue,
    FieldError,
    Forbidden,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
)
from catalog.products import queries, service
from catalog.products.bulk.formats import LineFault, UpsertLine
from catalog.products.changes import change_log
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.change_log import Logged
from catalog.products.keys import TAKEN
from catalog.products.models import ChangeType, NewProduct, Product

MAX_FAULTS = 1000
"""Faults that are reported in detail; further invalid lines are only counted."""

ROUND_LINES = 500
"""Lines that are decided and stored together; reading their products takes some milliseconds."""

ROUND_BYTES = 150_000
"""Texts of the products of a round, in UTF-8; a single line may exceed it. A change of a name
replaces the words of the whole product, which can take 50 ms for each of the longest."""

LOGGED_CHANGES = 2000


@dataclass(slots=True)
class Upserted:
    """Outcome of lines.

    Attributes:
        ids: ids of the created products, in the order of their lines.
        updated: number of lines that changed a product.
        unchanged: number of lines whose product was like that already.
        failed: number of the other lines.
        faults: the faults of the first of them, up to ``MAX_FAULTS`` lines.
        last: the last change; None if nothing has changed.
    """

    ids: list[int] = field(default_factory=list)
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    faults: list[list[LineFault]] = field(default_factory=list)
    last: ChangeId | None = None


@dataclass(slots=True, eq=False)
class _Target:
    """Product of the lines of a round, and the names of its changed fields; id 0 if it is new."""

    product: dict[str, Any]
    changed: set[str] = field(default_factory=set)


class Upserts:
    """Upserts of one transaction.

    Args:
        session: the transaction; or a connection, if nothing is to be written.
        owner_id: the owner of the products.
    """

    def __init__(self, session: AsyncSession | AsyncConnection, *, owner_id: int) -> None:
        self._session = session
        self._owner_id = owner_id
        self._at = now()
        self._changes: list[Logged] = []
        self.done = Upserted()

    async def apply(self, lines: Sequence[UpsertLine]) -> None:
        """Decide lines and store the outcome.

        Raises:
            RetryTransaction: a concurrent transaction claimed one of the keys.
        """
        await self.apply_some(lines, max_bytes=math.inf)

    async def apply_some(self, lines: Sequence[UpsertLine], *, max_bytes: float) -> int:
        """Decide lines and store the outcome, until their products are too large for more.

        Args:
            lines: the lines.
            max_bytes: bytes of the products' texts; those of the first round may exceed it.

        Returns:
            the number of lines that were decided, at least one.

        Raises:
            RetryTransaction: as ``apply``.
        """
        count, size = 0, 0
        for start in range(0, len(lines), ROUND_LINES):
            for end, part_size in await self._cut(lines[start : start + ROUND_LINES]):
                size += part_size
                if count and size > max_bytes:
                    return count
                await self._apply_round(lines[count : start + end])
                count = start + end
        return count

    async def _apply_round(self, lines: Sequence[UpsertLine]) -> None:
        part = _Round(self._owner_id, self._at, await self._read(lines), self.done)
        await part.decide(lines)
        if isinstance(self._session, AsyncSession):
            try:
                self._changes += await part.store(self._session)
            except IntegrityError as error:
                raise RetryTransaction from error
            renew_deadline(self._session)

    async def _cut(self, lines: Sequence[UpsertLine]) -> list[tuple[int, int]]:
        """Return where the rounds of lines end, and the size of the products of each.

        The sizes are read before the products are locked, so they are estimates.
        """
        holders = await self._holders(_keys_of(lines))
        named = [{line.product_id, holders.get(line.values.get("key"))} - {None} for line in lines]
        sizes = await self._sizes(set().union(*named))
        rounds = []
        size, seen = 0, set[int | None]()
        for index, product_ids in enumerate(named):
            more = sum(sizes.get(each, 0) for each in product_ids - seen)
            if index and size + more > ROUND_BYTES:
                rounds.append((index, size))
                size, seen = 0, set()
                more = sum(sizes.get(each, 0) for each in product_ids)
            size += more
            seen |= product_ids
        return [*rounds, (len(lines), size)]

    @property
    def _is_stored(self) -> bool:
        return isinstance(self._session, AsyncSession)

    async def log(self) -> Upserted:
        """Log the changes, the last step of the transaction."""
        if isinstance(self._session, AsyncSession):
            # In pieces, which the event loop formats one at a time.
            for start in range(0, len(self._changes), LOGGED_CHANGES):
                changes = self._changes[start : start + LOGGED_CHANGES]
                self.done.last = await change_log.record_all(self._session, changes, at=self._at)
                renew_deadline(self._session)
        return self.done

    async def _read(self, lines: Sequence[UpsertLine]) -> list[dict[str, Any]]:
        """Return the products that lines name, or whose keys they claim; locked if stored."""
        ids = {line.product_id for line in lines if line.product_id is not None}
        ids |= set((await self._holders(_keys_of(lines))).values())
        if not ids:
            return []
        # In the order of their ids, so that two transactions do not deadlock.
        statement = queries.LOCK_WAITING if self._is_stored else queries.SOME
        rows = await self._session.execute(statement, {"product_ids": sorted(ids)})
        return [queries.members_of(row) for row in rows]

    async def _holders(self, keys: Collection[str]) -> dict[str | None, int]:
        """Return the ids of the owner's products that have some keys."""
        if not keys:
            return {}
        own = select(Product.key, Product.id).where(Product.user_id == self._owner_id)
        rows = await self._session.execute(own.where(Product.key.in_(sorted(keys))))
        return dict(rows.all())

    async def _sizes(self, product_ids: Collection[int | None]) -> dict[int | None, int]:
        """Return the bytes of the texts of products, by their ids."""
        if not product_ids:
            return {}
        some = select(Product.id, queries.TEXT_BYTES).where(Product.id.in_(product_ids))
        return dict((await self._session.execute(some)).all())


def _keys_of(lines: Sequence[UpsertLine]) -> set[str]:
    return {line.values["key"] for line in lines if line.values.get("key") is not None}


class _Round:
    """Lines that are decided on the same state of the products, and stored together.

    Args:
        owner_id: the owner.
        at: the time of the changes.
        products: the products that the lines may concern.
        done: counts the outcomes.
    """

    def __init__(
        self, owner_id: int, at: datetime, products: Sequence[dict[str, Any]], done: Upserted
    ) -> None:
        self._owner_id = owner_id
        self._at = at
        self._done = done
        self._by_id = {product["id"]: _Target(product) for product in products}
        self._by_key = {
            target.product["key"]: target
            for target in self._by_id.values()
            if target.product["user_id"] == owner_id and target.product["key"] is not None
        }
        # Keys that the products had before lines of this round, and the products' ids.
        self._given_up: dict[str, int] = {}
        # Ids of products whose former keys others have claimed.
        self._released: set[int] = set()
        self._new: list[tuple[_Target, NewProduct]] = []
        self._log: list[tuple[_Target, ChangeType, int]] = []

    async def decide(self, lines: Sequence[UpsertLine]) -> None:
        """Decide lines, each on the outcome of those before it."""
        turn = Turn()
        for line in lines:
            try:
                self._decide(line)
            except CatalogError as refusal:
                self._done.failed += 1
                if len(self._done.faults) < MAX_FAULTS:
                    self._done.faults.append(_faults_of(line, refusal))
            await turn.yield_if_over()

    def _decide(self, line: UpsertLine) -> None:
        target = self._target_of(line)
        if target is None:
            self._create(line)
        elif not line.may_update:
            raise _taken()
        else:
            self._update(target, line)

    def _target_of(self, line: UpsertLine) -> _Target | None:
        key = line.values.get("key")
        if line.product_id is None:
            return None if key is None else self._by_key.get(key)
        target = self._by_id.get(line.product_id)
        if target is None:
            raise NotFound(f"Product {line.product_id} does not exist.")
        if target.product["user_id"] != self._owner_id:
            raise Forbidden("Only its owner may change a product.")
        return target

    def _create(self, line: UpsertLine) -> None:
        values = line.values
        missing = [name for name in ("name", "price") if name not in values]
        if missing:
            raise InvalidRequest(
                errors=[FieldError("pointer", f"/{name}", "is missing") for name in missing]
            )
        key = values.get("key")
        self._claim(key)
        name, description = values["name"], values.get("description")
        new_product = NewProduct(name, description, values["price"], self._owner_id, key=key)
        target = _Target(service.rendered(new_product, 0, self._at))
        if key is not None:
            self._by_key[key] = target
        self._new.append((target, new_product))
        self._log.append((target, ChangeType.CREATED, 1))
        self._done.ids.append(0)

    def _update(self, target: _Target, line: UpsertLine) -> None:
        product = target.product
        changes = {name: value for name, value in line.values.items() if product[name] != value}
        # Before the version is compared, so that a line that is sent again has no fault.
        if not changes:
            self._done.unchanged += 1
            return
        if line.version is not None and line.version != product["version"]:
            raise PreconditionFailed(f"The product has version {product['version']}.")
        if "key" in changes:
            self._move(target, changes["key"])
        target.product = service.updated(product, changes, self._at)
        target.changed |= changes.keys()
        self._log.append((target, ChangeType.UPDATED, target.product["version"]))
        self._done.updated += 1

    def _move(self, target: _Target, key: str | None) -> None:
        """Replace the key of a product."""
        self._claim(key)
        before = target.product["key"]
        if before is not None:
            del self._by_key[before]
            self._given_up[before] = target.product["id"]
        if key is not None:
            self._by_key[key] = target

    def _claim(self, key: str | None) -> None:
        if key in self._by_key:
            raise _taken()
        if key in self._given_up:
            self._released.add(self._given_up.pop(key))

    async def store(self, session: AsyncSession) -> list[Logged]:
        """Store the outcome; return the changes in the order of the lines."""
        if self._released:
            # The engines check keys row by row, so those that pass from one product to another are
            # removed first. Every other key is free or stays where it is.
            released = update(Product).where(Product.id.in_(sorted(self._released)))
            await affected_rows(session, released.values({Product.key: None}))
        if self._new:
            new_products = [new_product for _, new_product in self._new]
            ids = await service.insert_unlogged(session, new_products, at=self._at)
            del self._done.ids[-len(ids) :]
            self._done.ids += ids
            for (target, _), product_id in zip(self._new, ids, strict=True):
                target.product["id"] = product_id
        targets = {id(target): target for target, _, _ in self._log}.values()
        changed = ((each.product, each.changed) for each in targets if each.changed)
        await service.store_updates(session, changed, at=self._at)
        return [Logged(kind, target.product["id"], version) for target, kind, version in self._log]


def _taken() -> DuplicateValue:
    return DuplicateValue(errors=[FieldError("pointer", "/key", TAKEN)])


def _faults_of(line: UpsertLine, refusal: CatalogError) -> list[LineFault]:
    if refusal.errors:
        return [
            LineFault(line.number, refusal.slug, each.message, each.name) for each in refusal.errors
        ]
    pointer = "/version" if isinstance(refusal, PreconditionFailed) else None
    return [LineFault(line.number, refusal.slug, refusal.detail, pointer)]
