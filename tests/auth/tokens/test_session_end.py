"""Sessions that are ended, or deleted once they have expired."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import URL, insert, update

from catalog.app import create_app
from catalog.auth.models import LoginSession, Role, SupersededToken
from catalog.auth.tokens import sessions
from catalog.auth.tokens.session_state import GRACE
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.errors import NotFound, TokenReused
from tests.auth.rows import add_admin, rows_of, run, shift
from tests.auth.tokens.stored_sessions import (
    OWNER,
    bearer_of,
    begin,
    live_ids,
    rotate_stored,
    session_request,
)
from tests.db.support import Open, on_sqlite
from tests.engines import settings_for
from tests.support import until

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


class TestEnd:
    async def test_session_ends_once_for_its_owner(self, store: Database) -> None:
        ending, kept = [(await begin(store)).session_id for _ in range(2)]
        mine = {"session_id": ending, "user_id": OWNER.id}

        with pytest.raises(NotFound):
            await store.transaction(sessions.end, session_id=ending, user_id=OWNER.id + 1)
        await store.transaction(sessions.end, **mine)
        with pytest.raises(NotFound, match=f"no session {ending}"):
            await store.transaction(sessions.end, **mine)

        assert await live_ids(store) == {kept}

    async def test_session_of_any_account_may_have_ended_before(self, store: Database) -> None:
        session_id = (await begin(store)).session_id

        await store.transaction(sessions.end, session_id=session_id)
        await store.transaction(sessions.end, session_id=session_id)

        assert await live_ids(store) == set()

    async def test_origins_of_one_account_are_forgotten(self, store: Database) -> None:
        await begin(store)
        admin = await store.transaction(add_admin)
        await store.transaction(
            sessions.begin, user_id=admin, role=Role.ADMIN, session_request=session_request(100)
        )
        mine, other = await rows_of(store, LoginSession)
        assert mine["address"]
        assert mine["agent"]

        await store.transaction(sessions.forget_origins, user_id=OWNER.id)

        forgotten = {**mine, "address": "", "agent": ""}
        assert await rows_of(store, LoginSession) == [forgotten, other]


class TestSweep:
    KEPT = timedelta(minutes=16)

    async def sweep(self, database: Database, limit: int = 100) -> int:
        return await database.transaction(sessions.sweep, kept_ended=self.KEPT, limit=limit)

    async def test_sweep_deletes_unusable_rows_only(self, store: Database) -> None:
        ago = {"long": now() - self.KEPT - SECOND, "just": now() - self.KEPT + 30 * SECOND}
        changes: list[dict[str, datetime]] = [
            {},
            {"expires_at": ago["long"]},
            {"expires_at": ago["just"]},
            {"revoked_at": ago["long"]},
            {"revoked_at": ago["just"]},
            {"revoked_at": ago["long"], "expires_at": ago["long"]},
        ]
        for number, values in enumerate(changes, start=1):
            await begin(store)
            if values:
                await run(
                    store, update(LoginSession).where(LoginSession.id == number).values(values)
                )
        for token, age in (("a" * 64, 2 * GRACE + SECOND), ("b" * 64, GRACE)):
            row = {"token_hash": token, "superseded_at": now() - age}
            await run(store, insert(SupersededToken).values(row))

        assert await self.sweep(store) == 4
        assert await self.sweep(store) == 0

        assert [row["id"] for row in await rows_of(store, LoginSession)] == [1, 3, 5]
        left = await rows_of(store, SupersededToken)
        assert [row["token_hash"][0] for row in left] == ["b"]

    async def test_sweep_deletes_at_most_its_limit(self, store: Database) -> None:
        for _ in range(5):
            await begin(store)
        await run(store, update(LoginSession).values(expires_at=now() - DAY))

        assert [await self.sweep(store, 2) for _ in range(4)] == [2, 2, 1, 0]

    @on_sqlite
    async def test_app_sweeps_until_nothing_is_left(
        self, database_url: URL, store: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(11):
            await begin(store)
        await run(store, update(LoginSession).values(expires_at=now() - DAY))
        monkeypatch.setattr("catalog.app.SWEPT_AT_ONCE", 2)
        monkeypatch.setattr("catalog.app.SWEEP_SECONDS", 2)

        async def has_begun() -> bool:
            return len(await rows_of(store, LoginSession)) < 11

        async def is_done() -> bool:
            return await rows_of(store, LoginSession) == []

        async with create_app(settings_for(database_url)).test_app():
            await until(has_begun)
            # Faster than one batch every two seconds.
            await until(is_done, within=1.8)

    async def test_id_of_a_deleted_session_is_not_reused(
        self, store: Database, opened: Open
    ) -> None:
        last = [(await begin(store)).session_id for _ in range(3)][-1]
        await run(store, update(LoginSession).values(revoked_at=now() - DAY))
        assert await self.sweep(store) == 3

        assert (await begin(store)).session_id > last
        assert (await begin(opened())).session_id > last

    async def test_token_whose_row_is_swept_counts_as_stolen(self, store: Database) -> None:
        bearer = bearer_of(await begin(store))
        await store.transaction(rotate_stored, bearer)
        await shift(store, SupersededToken, -3 * GRACE, "superseded_at")
        assert await self.sweep(store) == 1

        with pytest.raises(TokenReused):
            await store.transaction(rotate_stored, bearer)
