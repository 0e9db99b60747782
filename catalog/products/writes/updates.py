"""Storing of products that a transaction has changed."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from time import monotonic
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.statements import stored_instant, update_rows
from catalog.errors import Conflict
from catalog.products.models import Product, ProductWords
from catalog.products.search.tokenizer import text_of, tokens_of

_TURN_SECONDS = 0.005
"""Time on the event loop before a batch yields to other tasks, plus at most one text."""

_COLUMNS = {"key": "client_key"}
"""Names of columns, where they are not those of the fields."""


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
        if not names.isdisjoint(("name", "description")):
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
    turn_ends = monotonic() + _TURN_SECONDS
    words = []
    for each in products:
        text = text_of(each["name"], each["description"])
        words.append((each["id"], tokens_of(text, each["id"])))
        if monotonic() > turn_ends:
            await asyncio.sleep(0)
            turn_ends = monotonic() + _TURN_SECONDS
    return words
