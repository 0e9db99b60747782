"""Recent changes in memory: which products have changed since a page was read.

A process reads the log from where it left off. Entries are kept only as far back as the log shows
them to be of one history; if it does not reach back, or begins another history, none is kept.
"""

from itertools import pairwise
from typing import Any

from sqlalchemy import Integer, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.columns import Id
from catalog.products.changes.change_counter import current_change
from catalog.products.changes.change_ids import ChangeId
from catalog.products.models import ProductChange

MAX_READ = 512
"""Changes read at a time; these take some milliseconds."""

MAX_PARTS = 8
"""Parts of so many changes that are read one after the other. After more of them, as after an
import, most pages are no longer requested, or have changed."""

MAX_KEPT = MAX_PARTS * MAX_READ
"""Changes kept. A page that was last served before them is read again."""

_log = ProductChange.__table__.c
_FROM = (
    select(_log.position, _log.token, _log.product_id)
    .where(_log.position >= bindparam("first", type_=Id))
    .order_by(_log.position)
    # Besides the last known change.
    .limit(bindparam("limit", MAX_READ + 1, type_=Integer))
)


class RecentChanges:
    """Latest changes of one history, without gaps; one per process."""

    def __init__(self) -> None:
        # Parallel lists. The first change is the one after which the others follow; its own product
        # does not count.
        self._changes: list[ChangeId] = []
        self._product_ids: list[int] = []

    def clear(self) -> None:
        """Forget all changes."""
        self._changes, self._product_ids = [], []

    def begin(self, change: ChangeId) -> None:
        """Begin at a change if none is known, so that later ones will follow it."""
        if not self._changes:
            self._changes, self._product_ids = [change], [0]

    @property
    def last(self) -> ChangeId:
        """The last known change; position 0 if none is known."""
        return self._changes[-1] if self._changes else ChangeId(0)

    def __contains__(self, change: ChangeId) -> bool:
        """Return whether a change is known, with all that follow up to the last one."""
        index = self._index_of(change)
        # A token is compared as well: after a restore, a position is that of another change.
        return 0 <= index < len(self._changes) and self._changes[index] == change

    def affect(self, span: range, *, since: ChangeId) -> bool:
        """Return whether a product in a range of ids has changed after a known change."""
        changed = self._product_ids[self._index_of(since) + 1 :]
        # Mostly creates, which are above all deep pages: finding the least id is several times as
        # fast as comparing each.
        return bool(changed) and min(changed) < span.stop and any(map(span.__contains__, changed))

    def _index_of(self, change: ChangeId) -> int:
        return change.position - self._changes[0].position if self._changes else -1

    async def catch_up(self, connection: AsyncConnection) -> None:
        """Read the changes after the last known one.

        Begins anew at the last change if too many follow, or if the log does not show that they
        follow: it was swept, the database was restored, or the changes have no tokens.
        """
        known = self._changes
        for _ in range(MAX_PARTS):
            rows = await _read_following(connection, self.last)
            if self._changes is not known:
                # Meanwhile all was forgotten, and perhaps begun anew.
                return
            if rows is None:
                break
            self._changes += [ChangeId(row.position, row.token) for row in rows]
            self._product_ids += [row.product_id for row in rows]
            if len(rows) < MAX_READ:
                self._forget_oldest()
                return
        self._changes, self._product_ids = [await current_change(connection)], [0]

    def _forget_oldest(self) -> None:
        if len(self._changes) > MAX_KEPT:
            del self._changes[: -MAX_KEPT // 2], self._product_ids[: -MAX_KEPT // 2]


async def _read_following(connection: AsyncConnection, last: ChangeId) -> list[Any] | None:
    """Return up to ``MAX_READ`` changes after a known one; None if they are not known to follow."""
    if not last.token:
        return None
    rows = list(await connection.execute(_FROM, {"first": last.position}))
    is_known = bool(rows) and (rows[0].position, rows[0].token) == last
    has_gap = any(after.position != before.position + 1 for before, after in pairwise(rows))
    return rows[1:] if is_known and not has_gap else None
