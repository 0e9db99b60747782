"""``Idempotency-Key``: a create that is sent again is not done again.

After draft-ietf-httpapi-idempotency-key-header-07. The key commits with its product, and under
the lock on the change counter, so two requests cannot both find it missing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

import orjson
from sqlalchemy import delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.columns import now
from catalog.db.statements import affected_rows, insert_rows, stored_instant
from catalog.products.models import ChangeId, IdempotencyKey, NewProduct

_COLUMNS = (
    *("user_id", "key_hash", "content_hash", "product_id", "position", "token", "created_at"),
)


class Key(NamedTuple):
    """Which create a request asks for: whose, under which key, with what content; hashed."""

    owner_id: int
    key_hash: str
    content_hash: str

    @property
    def name(self) -> tuple[int, str]:
        """What has one product at most."""
        return self.owner_id, self.key_hash


def key_of(offer: NewProduct, text: str) -> Key:
    """The key of an offer that a client sends under a text of its choice."""
    content = orjson.dumps([offer.name, offer.description, offer.price])
    hashes = (sha256(part).hexdigest() for part in (text.encode(), content))
    return Key(offer.owner_id, *hashes)


class Done(NamedTuple):
    """What a create under a key has made."""

    content_hash: str
    product_id: int
    change: ChangeId
    created_at: datetime


async def find_done(session: AsyncSession, keys: Sequence[Key]) -> dict[tuple[int, str], Done]:
    """What was done under each of the keys before."""
    names = tuple_(IdempotencyKey.user_id, IdempotencyKey.key_hash)
    rows = await session.execute(
        select(
            IdempotencyKey.user_id,
            IdempotencyKey.key_hash,
            IdempotencyKey.content_hash,
            IdempotencyKey.product_id,
            IdempotencyKey.position,
            IdempotencyKey.token,
            IdempotencyKey.created_at,
        ).where(names.in_([key.name for key in keys]))
    )
    return {
        (row.user_id, row.key_hash): Done(
            row.content_hash, row.product_id, ChangeId(row.position, row.token), row.created_at
        )
        for row in rows
    }


async def remember(session: AsyncSession, done: Sequence[tuple[Key, Done]]) -> None:
    """Keep what was done under keys, in the transaction that has done it.

    Raises:
        IntegrityError: another transaction was first.
    """
    rows = [
        (
            *(*key.name, made.content_hash, made.product_id, *made.change),
            stored_instant(session, made.created_at),
        )
        for key, made in done
    ]
    await insert_rows(session, IdempotencyKey, _COLUMNS, rows)


async def sweep(session: AsyncSession, *, kept: timedelta, limit: int) -> int:
    """Forget keys older than that; that many at most.

    Returns:
        how many.
    """
    # Two steps, because not every engine limits a DELETE.
    outdated = (
        select(IdempotencyKey.user_id, IdempotencyKey.key_hash)
        .where(IdempotencyKey.created_at < now() - kept)
        .order_by(IdempotencyKey.created_at)
        .limit(limit)
    )
    names = [tuple(row) for row in await session.execute(outdated)]
    if not names:
        return 0
    columns = tuple_(IdempotencyKey.user_id, IdempotencyKey.key_hash)
    return await affected_rows(session, delete(IdempotencyKey).where(columns.in_(names)))
