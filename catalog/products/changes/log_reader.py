"""Changes after a given one, rendered with the current content of their products.

On MySQL and MariaDB the database writes a text per change; see ``product_encoding``. Where those
texts cannot be read, and on SQLite, rows are decoded.
"""

from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.raw_rows import TextQuery, has_raw_rows, read_texts
from catalog.db.read_connection import ReadConnection
from catalog.errors import ChangesGone
from catalog.products import queries
from catalog.products.changes.change_counter import current_change
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.statements import (
    FEW_FOLLOWING,
    FOLLOWING,
    FOLLOWING_TEXTS,
    OWN_COLUMNS,
    texts_in_ranges,
)
from catalog.products.models import ChangeType
from catalog.products.product_encoding import SEPARATOR, json_objects


class Entry(NamedTuple):
    """Rendered change.

    Attributes:
        change: its id.
        name: its id as text.
        json: its JSON.
    """

    change: ChangeId
    name: bytes
    json: bytes


def fitting(entries: Sequence[Entry], max_bytes: int) -> int:
    """Count the leading entries whose JSON fits into ``max_bytes``; at least one, if any."""
    count = size = 0
    for entry in entries:
        size += len(entry.json)
        if size > max_bytes and count:
            break
        count += 1
    return count


class Changes(NamedTuple):
    """Consecutive changes from the log.

    Attributes:
        entries: the changes, in commit order.
        last: the id of the last one; the last committed change if there is none.
        more: whether the log has more changes after them.
    """

    entries: list[Entry]
    last: ChangeId
    more: bool


class ChangesRequest(NamedTuple):
    """Request for up to ``limit`` changes after ``since``."""

    since: ChangeId
    limit: int

    @property
    def is_short(self) -> bool:
        """Whether the changes are few enough to be read with those of others."""
        return self.limit <= queries.FEW_ROWS


async def read_changes(
    connection: AsyncConnection,
    *,
    since: ChangeId,
    limit: int,
    max_bytes: int = queries.PAGE_BYTES,
) -> Changes:
    """Return the changes after a given one.

    Products have their current content, not that of the change; deleted ones have none.

    Args:
        connection: the connection to read on.
        since: the change after which to begin.
        limit: maximum number of changes.
        max_bytes: bound on the bytes of the products' texts, or of the changes' texts, which are
            shorter than their JSON; the change that exceeds it is the last.

    Raises:
        ChangesGone: changes after ``since`` have been deleted; or ``since`` is not of this
            history, for example after a restore from a backup; or it has been deleted itself, so
            that its token cannot be compared.
    """
    request = ChangesRequest(since, limit)
    async with aclosing(read_each(connection, [request], max_bytes=max_bytes)) as each:
        found = await anext(each)
    if isinstance(found, ChangesGone):
        raise found
    return found


async def read_each(
    connection: AsyncConnection,
    requests: Sequence[ChangesRequest],
    *,
    max_bytes: int = queries.PAGE_BYTES,
) -> AsyncGenerator[Changes | ChangesGone]:
    """Yield the changes for each request, or the error, as ``read_changes``.

    Short ones take one round trip together if possible. Each is rendered only when it is asked for,
    so that the caller can let others have their turn in between.
    """
    head = await current_change(connection)
    # Most polls end with the head, by one small query.
    short = [each for each in requests if each.is_short and each.since.position < head.position]
    together = iter(await _read(connection, short, max_bytes))
    for each in requests:
        found: Changes | ChangesGone
        try:
            if each.since.position >= head.position:
                found = _none_after(each.since, head)
            elif each.is_short:
                found = _checked(next(together)(), each.since, head)
            else:
                (rendered,) = await _read(connection, [each], max_bytes)
                found = _checked(rendered(), each.since, head)
        except ChangesGone as error:
            found = error
        yield found


class _UncheckedChanges(NamedTuple):
    """Rendered changes, not yet checked against the request.

    Attributes:
        entries: the changes that are retained.
        token_before: token of the change after which they were asked for; None if it was swept.
    """

    entries: list[Entry]
    token_before: str | None


def _none_after(since: ChangeId, head: ChangeId) -> Changes:
    if since.position > head.position:
        raise ChangesGone(f"The last change is {head}. {ChangesGone.START_OVER}")
    if not since.may_be(head):
        raise _other_history(since)
    return Changes([], head, more=False)


def _checked(found: _UncheckedChanges, since: ChangeId, head: ChangeId) -> Changes:
    entries, token = found
    # Positions have no gaps, so a missing one can only have been deleted.
    if not entries or entries[0].change.position != since.position + 1:
        raise ChangesGone(f"They are no longer retained. {ChangesGone.START_OVER}")
    if since.token:
        if token is None:
            raise ChangesGone(f"Change {since} is no longer retained. {ChangesGone.START_OVER}")
        if not since.may_be(ChangeId(since.position, token)):
            raise _other_history(since)
    last = entries[-1].change
    return Changes(entries, last, more=last.position < head.position)


def _other_history(change: ChangeId) -> ChangesGone:
    message = f"There is no change {change} in this history of the database."
    return ChangesGone(f"{message} {ChangesGone.START_OVER}")


async def _read(
    connection: AsyncConnection, requests: Sequence[ChangesRequest], max_bytes: int
) -> list[Callable[[], _UncheckedChanges]]:
    """Read the rows for each request, to be rendered by a call."""
    if not (isinstance(connection, ReadConnection) and has_raw_rows(connection)):
        return [
            partial(_from_rows, await _rows_after(connection, each, max_bytes)) for each in requests
        ]
    if requests and all(each.is_short for each in requests):
        together = await _texts_together(connection, requests, max_bytes)
        if together is not None:
            return [partial(together.changes_for, each, max_bytes) for each in requests]
    return [
        partial(_from_texts, await _texts_after(connection, each, max_bytes)) for each in requests
    ]


async def _texts_after(
    connection: ReadConnection, request: ChangesRequest, max_bytes: int
) -> list[bytes]:
    values = {"since": request.since.position, "limit": request.limit, "max_bytes": max_bytes}
    query = TextQuery(FOLLOWING_TEXTS, values)
    (texts,) = await read_texts(connection, query, max_bytes=max_bytes)
    return texts


async def _texts_together(
    connection: ReadConnection, requests: Sequence[ChangesRequest], max_bytes: int
) -> "_Texts | None":
    """Read the changes for short requests at once; None if they are more than ``max_bytes`` each.

    Positions have no gaps, so the changes after a position are a range.
    """
    values: dict[str, int] = {}
    for number, each in enumerate(requests):
        values[f"first_{number}"] = each.since.position
        values[f"last_{number}"] = each.since.position + each.limit
    most = max_bytes * len(requests)
    query = TextQuery(texts_in_ranges(len(requests)), values)
    (texts,) = await read_texts(connection, query, max_bytes=most)
    # Beyond that, texts have been dropped.
    return _Texts(texts) if sum(map(len, texts)) <= most else None


class _Texts:
    """Texts of changes, in the order of positions.

    Args:
        texts: of ``texts_in_ranges``.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = texts
        self._positions = [int(text[: text.index(SEPARATOR)]) for text in texts]

    def changes_for(self, request: ChangesRequest, max_bytes: int) -> _UncheckedChanges:
        """Render the changes for a request, up to the one that exceeds ``max_bytes``."""
        since = request.since.position
        low = bisect_left(self._positions, since)
        high = bisect_right(self._positions, since + request.limit)
        token = None
        if low < high and self._positions[low] == since:
            token = self._texts[low].split(SEPARATOR, 2)[1].decode()
            low += 1
        texts = self._texts[low:high]
        sizes_before = accumulate(map(len, texts[:-1]), initial=0)
        count = sum(size <= max_bytes for size in sizes_before)
        return _UncheckedChanges(_from_texts(texts[:count]).entries, token)


def _from_texts(texts: Sequence[bytes]) -> _UncheckedChanges:
    rows = [text.split(SEPARATOR, 4) for text in texts]
    products = iter(json_objects([product for *_, product in rows if product]))
    entries = []
    for position, token, _, members, product in rows:
        name = b"%b.%b" % (position, token) if token else position
        # No other spaces than that in the instant.
        own, content = members.replace(b" ", b"T"), next(products) if product else b"null"
        json = b'{"position":%b%b,"product":%b}' % (position, own, content)
        entries.append(Entry(ChangeId(int(position), token.decode()), name, json))
    before = rows[0][2] if rows else b""
    return _UncheckedChanges(entries, before[1:].decode() if before else None)


async def _rows_after(
    connection: AsyncConnection, request: ChangesRequest, max_bytes: int
) -> Sequence[Any]:
    """Return the rows of ``FOLLOWING``; for a few, the bound is applied here, which is faster."""
    values = {"since": request.since.position, "limit": request.limit}
    if not request.is_short:
        bounded = {**values, "max_bytes": max_bytes}
        return (await connection.execute(FOLLOWING, bounded)).all()
    rows: Sequence[Any] = (await connection.execute(FEW_FOLLOWING, values)).all()
    count = size = 0
    while count < len(rows) and size <= max_bytes:
        size += queries.text_bytes(rows[count].name, rows[count].description)
        count += 1
    return rows[:count]


def _from_rows(rows: Sequence[Any]) -> _UncheckedChanges:
    entries = []
    for row in rows:
        change = ChangeId(row.position, row.token)
        entries.append(Entry(change, str(change).encode(), orjson.dumps(_change(row))))
    return _UncheckedChanges(entries, rows[0].token_before if rows else None)


def _change(row: Sequence[Any]) -> dict[str, Any]:
    own, product = row[: len(OWN_COLUMNS)], row[len(OWN_COLUMNS) :]
    position, _, _, kind, product_id, version, at = own
    is_there = kind != ChangeType.DELETED and product[0] is not None
    return {
        "position": position,
        "type": kind,
        "id": product_id,
        "version": version,
        "at": at,
        "product": queries.members_of(product) if is_there else None,
    }
