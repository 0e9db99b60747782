"""Idempotency keys: a create that is retried with the same key is not executed again.

See draft-ietf-httpapi-idempotency-key-header-07. The key commits with its product. Two processes
may both find it missing; the primary key then lets one commit, and the other is retried and
replays the response.
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
from catalog.products.changes.change_ids import ChangeId
from catalog.products.models import IdempotencyKey, NewProduct

RETENTION = timedelta(days=1)
"""Time for which a repeated key gets the first response; part of the API's contract."""

_COLUMNS = (
    *("user_id", "key_hash", "content_hash", "product_id", "position", "token", "created_at"),
)


class KeyedCreate(NamedTuple):
    """Identity of a create request: owner, hash of the key, and hash of the content."""

    owner_id: int
    key_hash: str
    content_hash: str

    @property
    def name(self) -> tuple[int, str]:
        """Unique name of the idempotency key, among those of all owners."""
        return self.owner_id, self.key_hash


def keyed_create(product: NewProduct, text: str) -> KeyedCreate:
    """Return the identity of a create, from the text of its ``Idempotency-Key`` header.

    The hash of the same content must not change from one release to the next: stored keys have it.
    """
    content = orjson.dumps([*product[:3], *([] if product.key is None else [product.key])])
    hashes = (sha256(part).hexdigest() for part in (text.encode(), content))
    return KeyedCreate(product.owner_id, *hashes)


class Done(NamedTuple):
    """Stored result of a create with a key."""

    content_hash: str
    product_id: int
    change: ChangeId
    created_at: datetime


async def find_done(
    session: AsyncSession, creates: Sequence[KeyedCreate]
) -> dict[tuple[int, str], Done]:
    """Return the stored results of those keys that were used before, by ``KeyedCreate.name``."""
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
        ).where(names.in_([create.name for create in creates]))
    )
    return {
        (row.user_id, row.key_hash): Done(
            row.content_hash, row.product_id, ChangeId(row.position, row.token), row.created_at
        )
        for row in rows
    }


async def remember(session: AsyncSession, done: Sequence[tuple[KeyedCreate, Done]]) -> None:
    """Store the results of creates with keys, in the transaction of the creates.

    Raises:
        IntegrityError: another transaction stored one of the keys first.
    """
    rows = [
        (
            *(*create.name, made.content_hash, made.product_id, *made.change),
            stored_instant(session, made.created_at),
        )
        for create, made in done
    ]
    await insert_rows(session, IdempotencyKey, _COLUMNS, rows)


async def sweep(session: AsyncSession, *, kept: timedelta, limit: int) -> int:
    """Delete the oldest keys that are older than ``kept``, up to ``limit``.

    Returns:
        the number deleted.
    """
    # Two steps, because not every engine supports LIMIT in a DELETE.
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
