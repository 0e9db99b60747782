"""Reader of pages of the change log: requests at the same time share a head, and equal ones all.

Short pages are read in one round trip where the engine allows it.

A request joins only a read that begins after it, so it sees every change that was acknowledged
before.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from functools import lru_cache
from typing import NamedTuple

from catalog.db.batch_reader import BatchReader, batch_reader
from catalog.db.database import Database
from catalog.db.read_connection import ReadConnection
from catalog.errors import ChangesGone
from catalog.http.replies.reply import Reply
from catalog.products.changes import change_ids
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.log_reader import ChangesRequest, Entry, fitting, read_each
from catalog.products.queries import PAGE_BYTES

MAX_BATCH = 8
"""Pages in one batch; more would delay the first ones, and each may take ``PAGE_BYTES``."""

TURN_BYTES = 256 * 1024
"""Bytes of changes rendered before other requests have their turn, if one page has no more; a page
of ``PAGE_BYTES`` takes some five milliseconds."""


class ChangesReply(NamedTuple):
    """Changes as they are sent.

    Attributes:
        is_empty: whether there are none.
        last: the last of them; the last committed change if there is none.
        reply: the response.
    """

    is_empty: bool
    last: ChangeId
    reply: Reply


class ChangeReader:
    """Reader and renderer of changes; one per process."""

    def __init__(self, database: Database) -> None:
        self._loader: BatchReader[ChangesRequest, ChangesReply | ChangesGone, ChangesReply] = (
            batch_reader(
                database,
                _read,
                _unwrapped,
                max_concurrent_reads=database.max_readers,
                max_batch=MAX_BATCH,
            )
        )

    async def read(self, since: ChangeId, limit: int) -> ChangesReply:
        """Return the changes after a given one.

        Raises:
            ChangesGone: as ``log_reader.read_changes``.
            DatabaseUnavailable, DatabaseBusy: as ``Database.connection``.
        """
        request = ChangesRequest(since, limit)
        return await self._loader.load(request, request)


async def _read(
    connection: ReadConnection, requests: Sequence[ChangesRequest]
) -> list[ChangesReply | ChangesGone]:
    found: list[ChangesReply | ChangesGone] = []
    size = 0
    async with aclosing(read_each(connection, requests)) as each:
        async for changes in each:
            if isinstance(changes, ChangesGone):
                found.append(changes)
                continue
            reply = page_reply(changes.entries, changes.last, more=changes.more)
            found.append(ChangesReply(not changes.entries, changes.last, reply))
            size += sum(len(entry.json) for entry in changes.entries)
            if size > TURN_BYTES:
                # Other requests have their turn.
                await asyncio.sleep(0)
                size = 0
    return found


def _unwrapped(_: ChangesRequest, found: ChangesReply | ChangesGone) -> ChangesReply:
    if isinstance(found, ChangesGone):
        raise found
    return found


def page_reply(entries: Sequence[Entry], last: ChangeId, *, more: bool) -> Reply:
    """Return the response with as many changes as fit into one.

    Args:
        entries: the changes.
        last: the last committed change, if there are none.
        more: whether the log has more changes after them.
    """
    count = fitting(entries, PAGE_BYTES)
    return _page_reply(tuple(entries[:count]), last, more=more or count < len(entries))


# Long polls mostly end with the same changes, and their clients hold what they have not read yet.
@lru_cache(maxsize=2)
def _page_reply(entries: tuple[Entry, ...], last: ChangeId, *, more: bool) -> Reply:
    last = entries[-1].change if entries else last
    body = b'{"changes":[%b],"position":%d,"change":"%b","more":%b}' % (
        b",".join(entry.json for entry in entries),
        last.position,
        str(last).encode(),
        b"true" if more else b"false",
    )
    return Reply(body, headers=change_ids.read_headers(last))
