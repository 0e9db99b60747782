"""Change feed: one poller in each process serves all followers.

New changes are rendered once and kept in a shared buffer, in which every follower only has a
position. A follower that begins before the buffer reads the log itself until it has caught up; one
that falls behind the buffer afterwards is too slow, and is disconnected.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.database import Database
from catalog.errors import ChangesGone, NotReady, Overloaded
from catalog.observability.metrics import count_rejection, observe_position
from catalog.products.changes.change_counter import current_change
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.log_reader import Entry, fitting, read_changes

POLL_SECONDS = 0.1
"""Polling interval while there are followers; each poll costs one or two small queries."""

POLL_TIMEOUT_SECONDS = 2.0
HEARTBEAT_SECONDS = 15.0

MAX_FOLLOWERS = 5000
"""Per process; file descriptors would be exhausted first."""

MAX_CATCHING_UP = 2
"""Followers that read the log itself at a time."""

KEPT_CHANGES = 4096
KEPT_BYTES = 8 * 1024 * 1024
"""Capacity of the buffer, and so the maximum lag of a follower: that many changes and bytes of
their JSON, plus those of the last read."""

STRETCH = 256
"""Changes read, or yielded to a follower, at a time."""

STRETCH_BYTES = 64 * 1024
"""JSON yielded to a follower at a time, which is held until it has been sent."""

WOKEN_AT_A_TIME = 32
"""Waiters woken in one turn of the event loop; each takes some 0.2 ms to send its changes."""


class Feed:
    """Buffer of recent changes for followers; one per process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers = 0
        self._ended = False
        self._catching_up = asyncio.Semaphore(MAX_CATCHING_UP)
        # Waiters are woken in portions, so that thousands do not delay other requests. A dictionary
        # for its order.
        self._notifications = 0
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._to_wake: deque[asyncio.Future[None]] = deque()
        # The buffer: the changes after ``_begin`` up to ``_head``, without gaps. It is empty and
        # ``_begin`` is None while there are no followers.
        self._entries: list[Entry] = []
        self._bytes = 0
        self._begin: ChangeId | None = None

    @property
    def followers(self) -> int:
        """Number of followers, including waiting requests."""
        return self._followers

    @property
    def _head(self) -> ChangeId:
        return self._entries[-1].change if self._entries else self._begin or ChangeId(0)

    async def poll(self) -> None:
        """Poll for new changes if there are followers; to be called every ``POLL_SECONDS``.

        Raises:
            DatabaseUnavailable, DatabaseBusy: as ``Database.watch``; followers keep waiting.
        """
        if not self._followers:
            self._forget()
            return
        if self._begin is None:
            async with self._watch() as connection:
                self._begin = await current_change(connection)
            self._notify()
        more = True
        while more:
            since = self._head
            try:
                async with self._watch() as connection:
                    found = await read_changes(connection, since=since, limit=STRETCH)
            except ChangesGone:
                # Another history, as after a restore: each follower has to read the log itself.
                self._forget()
                self._notify()
                return
            self._add(found.entries)
            more = found.more
            observe_position(self._head.position)

    def _watch(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._database.watch(within=POLL_TIMEOUT_SECONDS)

    def _add(self, entries: list[Entry]) -> None:
        if not entries:
            return
        # Trim before adding: the new entries stay complete for followers that are up to date.
        self._trim()
        self._entries += entries
        self._bytes += sum(len(entry.json) for entry in entries)
        self._notify()

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

    def _notify(self) -> None:
        """Wake all waiters, a portion of them in each turn of the event loop."""
        self._notifications += 1
        is_waking = bool(self._to_wake)
        self._to_wake.extend(self._waiting)
        self._waiting.clear()
        if not is_waking:
            self._wake_some()

    def _wake_some(self) -> None:
        for _ in range(min(WOKEN_AT_A_TIME, len(self._to_wake))):
            waiter = self._to_wake.popleft()
            if not waiter.done():
                waiter.set_result(None)
        if self._to_wake:
            # The next portion comes after these waiters, and after what has arrived meanwhile.
            self._to_wake[0].get_loop().call_soon(self._wake_some)

    async def _wait(self, notifications: int) -> None:
        """Wait until there were more notifications than that."""
        if notifications < self._notifications:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        try:
            await waiter
        finally:
            self._waiting.pop(waiter, None)

    def end(self) -> None:
        """Disconnect all followers before the process stops; idempotent."""
        self._ended = True
        self._notify()

    @contextmanager
    def _following(self) -> Iterator[None]:
        if self._followers >= MAX_FOLLOWERS:
            count_rejection("followers")
            raise Overloaded("Too many clients are following the changes.")
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1

    async def wait(self, *, since: ChangeId, limit: int, seconds: float) -> list[Entry]:
        """Long-poll for changes after a given one; return none on time-out.

        Args:
            since: the change at which the log ended a moment ago.
            limit: maximum number of changes.
            seconds: how long to wait.

        Raises:
            ChangesGone: the database has another history now, without ``since``.
            Overloaded: too many followers.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        with self._following():
            while not self._ended:
                notifications = self._notifications
                found = self._after(since, limit)
                if found is None and self._begin is not None:
                    # Either the buffer has moved past ``since``, and the log has the changes; or
                    # the history is another one, and reading the log raises ChangesGone.
                    async with self._database.connection() as connection:
                        changes = await read_changes(connection, since=since, limit=limit)
                    return changes.entries
                if found:
                    return found
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._wait(notifications)
                except TimeoutError:
                    break
        return []

    async def follow(self, since: ChangeId) -> AsyncGenerator[Sequence[Entry], None]:
        """Yield all changes after a given one, in order, exactly once, without end.

        Yields:
            consecutive changes; an empty sequence as a heartbeat after ``HEARTBEAT_SECONDS``.

        Raises:
            ChangesGone: the log does not reach back to ``since``, or has another history by now.
            NotReady: the process is about to stop.
            Overloaded: too many followers, or this one is slower than the changes.
            DatabaseUnavailable, DatabaseBusy: as ``Database.connection``.
        """
        last, has_caught_up = since, False
        with self._following():
            while True:
                if self._ended:
                    raise NotReady("The service is restarting.")
                notifications = self._notifications
                found = self._after(last, STRETCH)
                if found is None and has_caught_up and self._is_behind(last):
                    count_rejection("followers")
                    raise Overloaded("The client reads more slowly than changes are made.")
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
                    # Adopt the token: from here on a change of history can be detected.
                    last = self._head
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await self._wait(notifications)
                except TimeoutError:
                    yield ()

    async def check(self, since: ChangeId) -> None:
        """Check that ``follow`` can begin at a change.

        Raises:
            ChangesGone, DatabaseUnavailable, DatabaseBusy: as ``follow``.
        """
        if self._after(since, 1) is None or since.position > self._head.position:
            await self._read_log(since)

    async def _read_log(self, since: ChangeId) -> list[Entry]:
        """Read the next changes from the log, up to ``STRETCH`` of them."""
        # When a worker is replaced, all its followers reconnect at once. They queue here, where
        # none is rejected, and leave connections to other requests.
        async with self._catching_up, self._database.connection() as connection:
            changes = await read_changes(
                connection, since=since, limit=STRETCH, max_bytes=STRETCH_BYTES
            )
        return changes.entries

    def _is_behind(self, last: ChangeId) -> bool:
        return self._begin is not None and last.position < self._begin.position

    def _after(self, last: ChangeId, limit: int) -> list[Entry] | None:
        """Return the next entries of the buffer after a change.

        None if the buffer begins after that change, or if the change is not of this history.
        """
        if self._begin is None or last.position < self._begin.position:
            return None
        first = last.position - self._begin.position
        # A follower that has read the log itself may be ahead of the buffer.
        if first <= len(self._entries):
            known = self._entries[first - 1].change if first else self._begin
            if not last.may_be(known):
                return None
        return self._entries[first : first + limit]
