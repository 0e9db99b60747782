"""What has changed since tokens were issued: sessions that ended, roles that are others now.

Every process asks the database for the changes of the last moments, twice a second, and keeps
them in memory for as long as a token from before them may live. So no request needs to ask. When
the database is away, the last answer stands.
"""

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CompoundSelect, bindparam, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.auth.models import LoginSession, Role, User
from catalog.auth.tokens import LEEWAY, Bearer
from catalog.db.columns import Timestamp, database_now
from catalog.db.database import Database
from catalog.errors import DatabaseUnavailable, SessionEnded

PATIENCE_SECONDS = 0.9
"""How long one look at the database may take."""

MARGIN = timedelta(minutes=1)
"""How much longer than needed changes are kept, for clocks that are apart."""


def _changes() -> CompoundSelect[Any]:
    since = bindparam("since", type_=Timestamp())
    nothing = literal("")
    return union_all(
        # Always one row, with the clock by which the next question is asked.
        select(literal("now"), literal(0), nothing, database_now()),
        select(literal("session"), LoginSession.id, nothing, LoginSession.revoked_at).where(
            LoginSession.revoked_at > since
        ),
        select(literal("role"), User.id, User.role, User.role_changed_at).where(
            User.role_changed_at > since
        ),
    )


_CHANGES = _changes()


class Revocations:
    """The sessions that have ended and the roles that have changed of late.

    Args:
        database: where to ask.
        access_token_ttl: how long a change is of interest.
        lateness: how long a transaction takes at most, its COMMIT included. One that commits late
            carries a time from before others that were seen already, so each question reaches back
            by that much.

    Attributes:
        kept: how long changes are kept here, and must stay in the database.
    """

    def __init__(
        self, database: Database, *, access_token_ttl: timedelta, lateness: timedelta
    ) -> None:
        self._database = database
        self.kept = access_token_ttl + LEEWAY + MARGIN
        self._lateness = lateness
        self._since: datetime | None = None
        self._loaded_at: float | None = None
        # By the time at which they may be forgotten; both in the order of that time.
        self._ended: dict[int, float] = {}
        self._roles: dict[int, tuple[Role, float]] = {}

    def check(self, bearer: Bearer) -> Role | None:
        """Let the holder of a token pass unless its session has ended.

        Returns:
            what its account may do now, which the token may not know yet.

        Raises:
            SessionEnded: it has.
            DatabaseUnavailable: there is no telling, since the database was never reached.
        """
        if self._loaded_at is None:
            raise DatabaseUnavailable("It is not known yet which sessions have ended.")
        if bearer.session_id in self._ended:
            raise SessionEnded
        changed = self._roles.get(bearer.user_id)
        return changed[0] if changed else bearer.role

    @property
    def age(self) -> float | None:
        """Seconds since the database was last asked with success; None before the first time."""
        return None if self._loaded_at is None else time.monotonic() - self._loaded_at

    @property
    def count(self) -> int:
        """How many changes are kept."""
        return len(self._ended) + len(self._roles)

    def add(self, session_ids: Iterable[int]) -> None:
        """Let sessions end in this process at once; call it when that is committed."""
        until = time.monotonic() + self.kept.total_seconds()
        for session_id in session_ids:
            self._ended.setdefault(session_id, until)

    def set_role(self, user_id: int, role: Role) -> None:
        """Let a role count in this process at once; call it when that is committed."""
        self._roles.pop(user_id, None)
        self._roles[user_id] = (role, time.monotonic() + self.kept.total_seconds())

    async def refresh(self) -> None:
        """Ask what has changed.

        Raises:
            DatabaseUnavailable, DatabaseBusy: there was no answer; what is known stays.
        """
        asked_at = time.monotonic()
        await self._database.watch(self._ask, within=PATIENCE_SECONDS)
        self._loaded_at = asked_at
        self._forget(asked_at)

    async def _ask(self, connection: AsyncConnection) -> None:
        since = self._since
        if since is None:
            # By the database's clock too: ours may be ahead of it by more than the margin.
            since = (await connection.execute(select(database_now()))).scalar_one() - self.kept
        rows = (await connection.execute(_CHANGES, {"since": since})).all()
        # In the order of time, so that the last of two roles counts.
        for kind, identifier, role, at in sorted(rows, key=lambda row: row[3]):
            if kind == "session":
                self.add([identifier])
            elif kind == "role":
                self.set_role(identifier, Role(role))
            else:
                self._since = at - self._lateness

    def _forget(self, moment: float) -> None:
        # Each is kept for the same time, so those that were added first stand first.
        while self._ended and next(iter(self._ended.values())) < moment:
            del self._ended[next(iter(self._ended))]
        while self._roles and next(iter(self._roles.values()))[1] < moment:
            del self._roles[next(iter(self._roles))]
