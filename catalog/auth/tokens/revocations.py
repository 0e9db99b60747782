"""Revocations: sessions that ended, keys that were revoked and roles that changed recently.

Every process keeps them in memory for as long as an older token may live, so that requests need no
query. While requests use them, it polls the database for recent changes, twice a second; without
requests the list lapses, and the next request waits until the database has been asked
(docs/adr/0028). While the database is unavailable, the last known state applies.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import CompoundSelect, bindparam, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.auth.models import ApiKey, LoginSession, Role, User
from catalog.auth.tokens.jwt import LEEWAY, Bearer
from catalog.concurrency.single_flight import SingleFlight
from catalog.db.columns import Timestamp, database_now
from catalog.db.database import Database
from catalog.db.error_translation import did_not_answer
from catalog.errors import DatabaseUnavailable, SessionEnded

POLL_SECONDS = 0.5
"""Interval between two polls. Without a request that uses the list for that long, it lapses."""

READ_SECONDS = 0.7
"""Deadline of one poll of the database. A change that one poll misses is read by the next one: at
the latest after two deadlines and an interval."""

MARGIN = timedelta(minutes=1)
"""Additional retention of changes, for clock skew."""


def _changes() -> CompoundSelect[Any]:
    since = bindparam("since", type_=Timestamp())
    nothing = literal("")
    return union_all(
        # Always one row, with the database's time, from which the next poll starts.
        select(literal("now"), literal(0), nothing, database_now()),
        select(literal("session"), LoginSession.id, nothing, LoginSession.revoked_at).where(
            LoginSession.revoked_at > since
        ),
        select(literal("role"), User.id, User.role, User.role_changed_at).where(
            User.role_changed_at > since
        ),
        select(literal("key"), ApiKey.id, nothing, ApiKey.revoked_at).where(
            ApiKey.revoked_at > since
        ),
    )


_CHANGES = _changes()


class Revocations:
    """Sessions that ended, API keys that were revoked and roles that changed recently.

    Args:
        database: the database to poll.
        access_token_ttl: how long a change is relevant.
        lateness: the maximum duration of a transaction, its COMMIT included. One that commits late
            carries a time from before changes that were seen already, so each poll reaches back
            by that much.

    Attributes:
        kept: how long changes are kept here, and must stay in the database.
        has_lapsed: whether the list may be outdated, because no request used it or none was ever
            loaded. Before a request uses it then, it has to ``refresh`` it.
    """

    def __init__(
        self, database: Database, *, access_token_ttl: timedelta, lateness: timedelta
    ) -> None:
        self._database = database
        self.kept = access_token_ttl + LEEWAY + MARGIN
        self._lateness = lateness
        self.has_lapsed = True
        # Whether the next poll has to ask the database: the list was used since the last one, or
        # that one failed. A list that is in use stays so during an outage.
        self._is_due = True
        # Requests wait for it as long as for any read, also behind one that is under way.
        self._loader = SingleFlight(
            partial(database.watch, within=database.deadlines.read),
            self.load_changes,
            deadline_seconds=database.deadlines.read,
            timed_out=did_not_answer,
        )
        self._since: datetime | None = None
        self._loaded_at: float | None = None
        # Each with the time at which it may be evicted; both are in the order of that time.
        self._ended: dict[int, float] = {}
        self._revoked: dict[int, float] = {}
        self._roles: dict[int, tuple[Role, float]] = {}

    def check(self, bearer: Bearer) -> Role | None:
        """Check that a token's session has not ended, by a list that has not lapsed.

        Returns:
            the account's current role, which may be newer than the token's.

        Raises:
            SessionEnded: the session has ended.
            DatabaseUnavailable: unknown, because the database was never reached.
        """
        self._use()
        if bearer.session_id in self._ended:
            raise SessionEnded
        changed = self._roles.get(bearer.user_id)
        return changed[0] if changed else bearer.role

    def is_revoked(self, key_id: int) -> bool:
        """Return whether an API key was revoked recently, by a list that has not lapsed.

        Raises:
            DatabaseUnavailable: unknown, because the database was never reached.
        """
        self._use()
        return key_id in self._revoked

    def _use(self) -> None:
        self._is_due = True
        if self._loaded_at is None:
            raise DatabaseUnavailable("The list of ended sessions has not been loaded yet.")

    @property
    def age(self) -> float | None:
        """Seconds since the last successful poll; None before the first."""
        return None if self._loaded_at is None else time.monotonic() - self._loaded_at

    @property
    def count(self) -> int:
        """Number of changes kept."""
        return len(self._ended) + len(self._revoked) + len(self._roles)

    def add(self, session_ids: Iterable[int]) -> None:
        """End sessions in this process at once; call it after the commit."""
        until = time.monotonic() + self.kept.total_seconds()
        for session_id in session_ids:
            self._ended.setdefault(session_id, until)

    def add_keys(self, key_ids: Iterable[int]) -> None:
        """Revoke API keys in this process at once; call it after the commit."""
        until = time.monotonic() + self.kept.total_seconds()
        for key_id in key_ids:
            self._revoked.setdefault(key_id, until)

    def set_role(self, user_id: int, role: Role) -> None:
        """Apply a new role in this process at once; call it after the commit."""
        self._roles.pop(user_id, None)
        self._roles[user_id] = (role, time.monotonic() + self.kept.total_seconds())

    async def poll(self) -> None:
        """Refresh a list that is in use, or let it lapse; to be called every ``POLL_SECONDS``.

        Raises:
            DatabaseUnavailable, DatabaseBusy: it failed; known changes stay.
        """
        if not self._is_due:
            self.has_lapsed = True
            return
        with self._asking():
            async with self._database.watch(within=READ_SECONDS) as connection:
                await self.load_changes(connection)

    async def refresh(self, *, since: float | None = None) -> None:
        """Ask the database for changes; concurrent callers share a query that begins after them.

        Args:
            since: start of the caller's deadline, by the loop's clock; now if not given.

        Raises:
            DatabaseUnavailable, DatabaseBusy: it failed; known changes stay.
        """
        with self._asking():
            await self._loader.load(since=since)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Leave the next poll due if this query fails, or if the list is used meanwhile."""
        self._is_due = False
        try:
            yield
        except Exception:
            self._is_due = True
            raise

    async def load_changes(self, connection: AsyncConnection) -> None:
        """Ask for changes on a connection."""
        asked_at = time.monotonic()
        await self._read_changes(connection)
        self._loaded_at = asked_at
        # A slower answer serves the requests that waited for it, but is too old for later ones.
        self.has_lapsed = time.monotonic() - asked_at > READ_SECONDS
        self._forget(asked_at)

    async def _read_changes(self, connection: AsyncConnection) -> None:
        since = self._since
        if since is None:
            # By the database's clock too: this machine's may be ahead by more than the margin.
            since = (await connection.execute(select(database_now()))).scalar_one() - self.kept
        rows = (await connection.execute(_CHANGES, {"since": since})).all()
        # In the order of time, so that the last of two roles wins.
        for kind, identifier, role, at in sorted(rows, key=lambda row: row[3]):
            if kind == "session":
                self.add([identifier])
            elif kind == "key":
                self.add_keys([identifier])
            elif kind == "role":
                self.set_role(identifier, Role(role))
            else:
                self._since = at - self._lateness

    def _forget(self, moment: float) -> None:
        # All are kept for the same time, so the first ones expire first.
        for ended in (self._ended, self._revoked):
            while ended and next(iter(ended.values())) < moment:
                del ended[next(iter(ended))]
        while self._roles and next(iter(self._roles.values()))[1] < moment:
            del self._roles[next(iter(self._roles))]
