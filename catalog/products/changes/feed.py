"""The change feed: one poller in each process feeds all who follow.

What the poller finds is rendered once and kept for a while in one list, of which every follower
only knows how far it has got. A follower who comes from further back reads the log itself until
it has caught up; one who falls behind the list afterwards is too slow, and is let go.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import orjson

from catalog.db.database import Database
from catalog.errors import ChangesGone, NotReady, Overloaded
from catalog.observability.metrics import count_rejection, observe_position
from catalog.products.changes.change_log import Changes, current_change, read_changes
from catalog.products.models import ChangeId

POLL_SECONDS = 0.1
"""Between two looks at the log while somebody follows; each costs one or two small queries."""

POLL_TIMEOUT_SECONDS = 2.0
HEARTBEAT_SECONDS = 15.0

MAX_FOLLOWERS = 5000
"""In one process; the file descriptors are what runs out first."""

MAX_CATCHING_UP = 2
"""Followers who read the log itself at a time."""

KEPT_CHANGES = 4096
KEPT_BYTES = 8 * 1024 * 1024
"""How far a follower may fall behind: that many changes, or that much of their JSON, and what
was read last."""

STRETCH = 256
"""Changes that are read, or given to a follower, at a time."""

STRETCH_BYTES = 64 * 1024
"""Of their JSON that a follower is given at a time: each has a copy of it, until it is taken."""


class Entry(NamedTuple):
    """A change as JSON.

    Attributes:
        change: which one.
        name: the same as text.
        json: what it was.
    """

    change: ChangeId
    name: bytes
    json: bytes


def fitting(entries: Sequence[Entry], max_bytes: int) -> int:
    """How many of them take that many bytes at most as JSON; one at least, if there is any."""
    count = size = 0
    for entry in entries:
        size += len(entry.json)
        if size > max_bytes and count:
            break
        count += 1
    return count


def entries_of(changes: Changes) -> list[Entry]:
    """A stretch of the log, rendered."""
    return [
        Entry(change_id, str(change_id).encode(), orjson.dumps(change))
        for change_id, change in zip(changes.ids, changes.changes, strict=True)
    ]


class Feed:
    """What has happened lately, for those who wait for it; one for each process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers = 0
        self._ended = False
        self._catching_up = asyncio.Semaphore(MAX_CATCHING_UP)
        self._news = asyncio.Event()
        # What is kept: the changes from after ``_begin`` to ``_head``, without gaps. Nothing is
        # known while nobody follows.
        self._entries: list[Entry] = []
        self._bytes = 0
        self._begin: ChangeId | None = None

    @property
    def followers(self) -> int:
        """How many wait for what happens."""
        return self._followers

    @property
    def _head(self) -> ChangeId:
        return self._entries[-1].change if self._entries else self._begin or ChangeId(0)

    async def poll(self) -> None:
        """Look for new changes, if anybody follows; to be called every ``POLL_SECONDS``.

        Raises:
            DatabaseUnavailable, DatabaseBusy: as ``Database.watch``; followers go on waiting.
        """
        if not self._followers:
            self._forget()
            return
        if self._begin is None:
            self._begin = await self._watch(current_change)
            self._tell()
        more = True
        while more:
            since = self._head
            try:
                found = await self._watch(read_changes, since=since, limit=STRETCH)
            except ChangesGone:
                # Of another history, as after a restore: everybody has to look for themselves.
                self._forget()
                self._tell()
                return
            self._add(entries_of(found))
            more = found.more
            observe_position(self._head.position)

    async def _watch(self, work: Any, **options: Any) -> Any:
        return await self._database.watch(
            lambda connection: work(connection, **options), within=POLL_TIMEOUT_SECONDS
        )

    def _add(self, entries: list[Entry]) -> None:
        if not entries:
            return
        # Before and not after: the last stretch stays whole, for those who are up to date.
        self._trim()
        self._entries += entries
        self._bytes += sum(len(entry.json) for entry in entries)
        self._tell()

    def _trim(self) -> None:
        surplus = max(0, len(self._entries) - KEPT_CHANGES)
        dropped = sum(len(entry.json) for entry in self._entries[:surplus])
        while self._bytes - dropped > KEPT_BYTES:
            dropped += len(self._entries[surplus].json)
            surplus += 1
        if surplus:
            self._begin = self._entries[surplus - 1].change
        del self._entries[:surplus]
        self._bytes -= dropped

    def _forget(self) -> None:
        self._entries.clear()
        self._bytes = 0
        self._begin = None

    def _tell(self) -> None:
        """Wake all who wait."""
        self._news.set()
        self._news = asyncio.Event()

    def end(self) -> None:
        """Let everybody go, because the process is about to stop; idempotent."""
        self._ended = True
        self._tell()

    @contextmanager
    def _following(self) -> Iterator[None]:
        if self._followers >= MAX_FOLLOWERS:
            count_rejection("followers")
            raise Overloaded("Too many follow the changes already.")
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1

    async def wait(self, *, since: ChangeId, limit: int, seconds: float) -> list[Entry]:
        """Return the changes after one as soon as there are any; none if the time ends first.

        Args:
            since: the change, at which the log ended a moment ago.
            limit: changes at most.
            seconds: for how long to wait.

        Raises:
            ChangesGone: the database has another history now, in which it never was.
            Overloaded: too many wait already.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        with self._following():
            while not self._ended:
                news = self._news
                found = self._after(since, limit)
                if found is None and self._begin is not None:
                    # More has happened meanwhile than is kept, and the log has it; or this is
                    # another history, as the log will tell.
                    changes = await self._database.reading(read_changes, since=since, limit=limit)
                    return entries_of(changes)
                if found:
                    return found
                try:
                    async with asyncio.timeout_at(deadline):
                        await news.wait()
                except TimeoutError:
                    break
        return []

    async def follow(self, since: ChangeId) -> AsyncGenerator[Sequence[Entry], None]:
        """Yield the changes after one and all that follow, in order, once each.

        Yields:
            stretches of the log; an empty one when nothing has happened for a while.

        Raises:
            ChangesGone: the log does not reach back to there, or has another history by now.
            NotReady: the process is about to stop.
            Overloaded: too many follow already, or changes are taken more slowly than they come.
            DatabaseUnavailable, DatabaseBusy: as ``Database.reading``.
        """
        last, has_caught_up = since, False
        with self._following():
            while True:
                if self._ended:
                    raise NotReady("The service is restarting.")
                news = self._news
                found = self._after(last, STRETCH)
                if found is None and has_caught_up and self._is_behind(last):
                    count_rejection("followers")
                    raise Overloaded("Changes came faster than they were taken.")
                if found is None:
                    found = await self._read_log(last)
                else:
                    has_caught_up = True
                if found:
                    found = found[: fitting(found, STRETCH_BYTES)]
                    yield found
                    last = found[-1].change
                    continue
                if not last.token and last.may_be(self._head):
                    # From here on it can be told.
                    last = self._head
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await news.wait()
                except TimeoutError:
                    yield ()

    async def check(self, since: ChangeId) -> None:
        """See that one can follow from a change.

        Raises:
            ChangesGone, DatabaseUnavailable, DatabaseBusy: as ``follow``.
        """
        if self._after(since, 1) is None or since.position > self._head.position:
            await self._read_log(since)

    async def _read_log(self, since: ChangeId) -> list[Entry]:
        """Catch up by a stretch."""
        # When a worker is replaced, all its followers come back at once: let them queue here,
        # where nobody is refused for it, and leave connections to others.
        async with self._catching_up:
            changes = await self._database.reading(
                read_changes, since=since, limit=STRETCH, max_bytes=STRETCH_BYTES
            )
        return entries_of(changes)

    def _is_behind(self, last: ChangeId) -> bool:
        return self._begin is not None and last.position < self._begin.position

    def _after(self, last: ChangeId, limit: int) -> list[Entry] | None:
        """The first changes that are kept after one.

        None if some before them are not, or if it is none of this history.
        """
        if self._begin is None or last.position < self._begin.position:
            return None
        first = last.position - self._begin.position
        # One who has read the log itself may be ahead.
        if first <= len(self._entries):
            known = self._entries[first - 1].change if first else self._begin
            if not last.may_be(known):
                return None
        return self._entries[first : first + limit]
