"""Sessions: the stored row, rotation, theft, and the limit for an account."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from quart import Quart
from sqlalchemy import URL, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.app import create_app
from catalog.auth.models import LoginSession, Role, SupersededToken, User
from catalog.auth.session_reader import SessionReader
from catalog.auth.tokens import sessions
from catalog.auth.tokens.jwt import Bearer, issue_refresh_token, successor_id
from catalog.auth.tokens.session_state import GRACE, hash_of
from catalog.auth.tokens.sessions import TokenGrant
from catalog.db.columns import Base, database_now, now
from catalog.db.database import Database
from catalog.errors import SessionEnded
from tests.auth.callers import refresh
from tests.auth.rows import Row, rows_of, run, shift
from tests.auth.tokens.stored_sessions import (
    LIFETIMES,
    bearer_of,
    begin,
    live_ids,
    log_in,
    rotate_stored,
)
from tests.db.support import Open, on_servers, on_sqlite
from tests.engines import settings_for
from tests.http.wire import JSON, exchange
from tests.support import PASSWORD, Caller, fields_of, problem_of

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
AFTER_GRACE = GRACE + SECOND

REUSED = (401, "token-reused")
ENDED = (401, "session-ended")


async def rotate(caller: Caller, token: str | None = None) -> str:
    """Rotate a token, by default the caller's, and return its successor."""
    answer = await refresh(caller, json={"rotate": True}, token=token or caller.refresh_token)
    assert answer.status_code == 200, answer.body
    assert set(answer.json) == {"access_token", "refresh_token"}
    successor: str = answer.json["refresh_token"]
    return successor


def claims_of(token: str | None) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token or "", options={"verify_signature": False})
    return claims


async def the_session(database: Database) -> Row:
    (row,) = await rows_of(database, LoginSession)
    return row


class TestBegin:
    async def test_row_has_times_origin_and_token_hash(
        self, app: Quart, ada: Caller, onlooker: Database
    ) -> None:
        body = json.dumps({"username": "ada", "password": PASSWORD}).encode()
        headers = [JSON, (b"user-agent", b"x" * 254 + b"yz")]

        answer = await exchange(
            app, "POST", "/api/auth/login", headers=headers, body=[body], client=("2001:db8::7", 1)
        )

        first, second = await rows_of(onlooker, LoginSession)
        assert (first["user_id"], first["address"]) == (ada.user_id, "")
        assert (second["user_id"], second["address"]) == (ada.user_id, "2001:db8::7")
        assert second["agent"] == "x" * 254 + "y"
        for row, token in (
            (first, ada.refresh_token),
            (second, answer.json["refresh_token"]),
        ):
            assert row["refresh_hash"] == hash_of(claims_of(token)["jti"])
            assert abs(row["created_at"] - now()) < 30 * SECOND
            assert row["last_used_at"] == row["created_at"]
            assert row["expires_at"] == row["created_at"] + 30 * DAY
            assert row["revoked_at"] is None
            assert claims_of(token)["sid"] == str(row["id"])

    @on_sqlite
    async def test_refused_log_in_begins_no_session(self, ada: Caller, onlooker: Database) -> None:
        await ada.log_in("ada", "wrong password")
        await ada.log_in("nobody")
        await ada.sign_up("ADA")

        assert len(await rows_of(onlooker, LoginSession)) == 1

    async def test_database_contains_no_secret(
        self, ada: Caller, anyone: Caller, onlooker: Database
    ) -> None:
        answer = (await anyone.log_in("ada")).json
        successor = await rotate(ada)
        tokens = [ada.access_token, ada.refresh_token, successor]
        tokens += [answer["access_token"], answer["refresh_token"]]

        mappers = Base.registry.mappers
        rows = [row for mapper in mappers for row in await rows_of(onlooker, mapper.class_)]

        text = "\n".join(str(value) for row in rows for value in row.values())
        assert hash_of(claims_of(successor)["jti"]) in text
        assert hash_of(claims_of(ada.refresh_token)["jti"]) in text
        for token in tokens:
            assert str(token).rpartition(".")[2] not in text
            assert claims_of(token)["jti"] not in text
        assert PASSWORD not in text


class TestRefresh:
    async def test_refresh_a_hundred_times_writes_nothing(
        self, ada: Caller, onlooker: Database
    ) -> None:
        before = await the_session(onlooker)

        for method, times in (("POST", 100), ("GET", 20)):
            answers = [await refresh(ada, method) for _ in range(times)]

            assert {answer.status_code for answer in answers} == {200}
            assert all(list(answer.json) == ["access_token"] for answer in answers)
        assert await the_session(onlooker) == before
        assert await rows_of(onlooker, SupersededToken) == []

    async def test_last_use_is_written_once_a_minute_and_never_by_get(
        self, ada: Caller, onlooker: Database
    ) -> None:
        await shift(onlooker, LoginSession, -55 * SECOND, "last_used_at")
        before = await the_session(onlooker)
        await refresh(ada)
        assert await the_session(onlooker) == before

        await shift(onlooker, LoginSession, -6 * SECOND, "last_used_at")
        before = await the_session(onlooker)
        await refresh(ada, "GET")
        await refresh(ada, "HEAD")
        assert await the_session(onlooker) == before

        await refresh(ada)
        after = await the_session(onlooker)
        assert after["last_used_at"] > before["last_used_at"] + 60 * SECOND
        assert after == {**before, "last_used_at": after["last_used_at"]}

        await refresh(ada)
        assert await the_session(onlooker) == after

    @on_sqlite
    async def test_token_is_rotated_on_request_only(self, ada: Caller, onlooker: Database) -> None:
        before = await the_session(onlooker)

        bodies: list[dict[str, Any]] = [
            {},
            {"json": {}},
            {"json": {"rotate": False}},
            {"data": b"", "headers": {"Content-Type": "application/json"}},
        ]
        for options in bodies:
            answer = await refresh(ada, **options)

            assert answer.status_code == 200
            assert list(answer.json) == ["access_token"]
        assert await the_session(onlooker) == before

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            *[({"rotate": each}, "/rotate") for each in ("yes", "true", 1, 0, None)],
            ({"rotate": True, "user_id": 7}, "/user_id"),
            ({"Rotate": True}, "/Rotate"),
            ([], ""),
            (True, ""),
        ],
        ids=str,
    )
    async def test_malformed_body_is_refused(self, holder: Caller, body: Any, pointer: str) -> None:
        answer = await refresh(holder, json=body)

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [pointer]

    async def test_expired_session_is_ended(self, ada: Caller, onlooker: Database) -> None:
        await run(onlooker, update(LoginSession).values(expires_at=now() - SECOND))
        before = await the_session(onlooker)

        answers = [
            await refresh(ada),
            await refresh(ada, "GET"),
            await refresh(ada, json={"rotate": True}),
        ]

        assert [problem_of(answer) for answer in answers] == [ENDED] * 3
        assert await the_session(onlooker) == before


class TestRotation:
    async def test_successor_is_the_same_for_all_requests_within_grace(
        self, ada: Caller, onlooker: Database
    ) -> None:
        first = str(ada.refresh_token)

        second = await rotate(ada)
        assert second != first
        # Shift by 20 s, so that a column's resolution of one second cannot hide a difference.
        await shift(onlooker, SupersededToken, -20 * SECOND, "superseded_at")
        third = await rotate(ada, first)
        fourth = await rotate(ada, first)

        assert third == fourth
        assert claims_of(third)["jti"] == claims_of(second)["jti"]
        assert claims_of(third)["exp"] - claims_of(third)["iat"] == 30 * DAY.total_seconds()
        assert (await refresh(ada, token=first)).status_code == 200
        assert (await refresh(ada, "GET", token=first)).status_code == 200
        assert (await refresh(ada, token=second)).status_code == 200
        assert (await the_session(onlooker))["revoked_at"] is None

    async def test_lost_response_can_be_requested_again(
        self, ada: Caller, onlooker: Database
    ) -> None:
        lost = await rotate(ada)
        before = await the_session(onlooker)

        assert {await rotate(ada) for _ in range(3)} == {lost}
        assert await the_session(onlooker) == before

    async def test_rapid_chain_of_rotations_is_no_theft(self, ada: Caller) -> None:
        first = str(ada.refresh_token)
        second = await rotate(ada, first)
        third = await rotate(ada, second)

        assert await rotate(ada, first) == second
        assert await rotate(ada, second) == third
        assert len({first, second, third, await rotate(ada, third)}) == 4

    @on_sqlite
    async def test_rotation_extends_the_session_up_to_its_limit(
        self, ada: Caller, onlooker: Database
    ) -> None:
        token = str(ada.refresh_token)
        for age, left in ((10 * DAY, 30 * DAY), (70 * DAY, 20 * DAY), (89 * DAY, DAY)):
            created_at = now() - age
            await run(onlooker, update(LoginSession).values(created_at=created_at))

            token = await rotate(ada, token)

            expires_at = (await the_session(onlooker))["expires_at"]
            assert abs(expires_at - (now() + left)) < 30 * SECOND
            assert expires_at <= created_at + 90 * DAY
            assert claims_of(token)["exp"] == int(expires_at.timestamp())

    @on_sqlite
    async def test_token_does_not_outlive_a_shorter_session(
        self, database_url: URL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.auth.routes.sign_in.SESSION_FACTOR", 0.5)
        app = create_app(settings_for(database_url, refresh_token_ttl=2 * DAY))
        async with app.test_app():
            ada = await Caller.signed_up(app, "ada")
            claims = claims_of(ada.refresh_token)

            assert claims["exp"] - claims["iat"] == DAY.total_seconds()
            assert claims_of(await rotate(ada))["exp"] == claims["exp"]

    async def test_disabled_account_gets_no_successor(
        self, ada: Caller, onlooker: Database
    ) -> None:
        await run(onlooker, update(User).values(disabled=True))

        answer = await refresh(ada, json={"rotate": True})

        assert problem_of(answer) == (401, "account-unavailable")
        assert await rows_of(onlooker, SupersededToken) == []


class TestTheft:
    @pytest.mark.parametrize("body", [{"rotate": True}, None], ids=["rotate", "plain"])
    async def test_superseded_token_after_grace_ends_its_session(
        self, ada: Caller, onlooker: Database, body: Any
    ) -> None:
        elsewhere = await Caller.logged_in(ada.app, "ada")
        stolen = str(ada.refresh_token)
        successor = await rotate(ada)
        await shift(onlooker, SupersededToken, -AFTER_GRACE, "superseded_at")

        options = {"json": body} if body else {}
        refused = await refresh(ada, token=stolen, **options)

        assert problem_of(refused) == REUSED
        mine, other = await rows_of(onlooker, LoginSession)
        assert mine["revoked_at"] is not None
        assert other["revoked_at"] is None
        assert problem_of(await ada.get("/api/products/my")) == ENDED
        for token in (stolen, successor):
            for method in ("POST", "GET"):
                assert problem_of(await refresh(ada, method, token=token)) == ENDED
        assert (await elsewhere.get("/api/products/my")).status_code == 200
        assert (await refresh(elsewhere)).status_code == 200

    async def test_get_refuses_a_superseded_token_and_changes_nothing(
        self, ada: Caller, onlooker: Database
    ) -> None:
        successor = await rotate(ada)
        await shift(onlooker, SupersededToken, -AFTER_GRACE, "superseded_at")
        before = await the_session(onlooker)

        answer = await refresh(ada, "GET")

        assert problem_of(answer) == REUSED
        assert await the_session(onlooker) == before
        assert (await refresh(ada, token=successor)).status_code == 200
        assert (await ada.get("/api/products/my")).status_code == 200

    @on_sqlite
    async def test_superseded_token_within_grace_is_no_theft(
        self, ada: Caller, onlooker: Database
    ) -> None:
        successor = await rotate(ada)
        await shift(onlooker, SupersededToken, -(GRACE - 5 * SECOND), "superseded_at")

        assert claims_of(await rotate(ada))["jti"] == claims_of(successor)["jti"]

    async def test_token_without_a_stored_row_counts_as_stolen(
        self, ada: Caller, onlooker: Database
    ) -> None:
        session = await the_session(onlooker)
        async with ada.app.app_context():
            forgotten = issue_refresh_token(
                ada.user_id or 0,
                session_id=session["id"],
                token_id="0" * 32,
                issued_at=session["created_at"],
                expires_at=session["expires_at"],
            )

        assert problem_of(await refresh(ada, token=forgotten)) == REUSED
        assert (await the_session(onlooker))["revoked_at"] is not None

    @on_sqlite
    async def test_token_of_another_account_ends_no_session(
        self, ada: Caller, bob: Caller, onlooker: Database
    ) -> None:
        mine = claims_of(ada.refresh_token)
        async with ada.app.app_context():
            crossed = issue_refresh_token(
                bob.user_id or 0,
                session_id=int(mine["sid"]),
                token_id=mine["jti"],
                issued_at=now(),
                expires_at=now() + DAY,
            )

        for body in ({}, {"rotate": True}):
            answer = await refresh(bob, token=crossed, json=body)
            assert problem_of(answer) == (401, "account-unavailable")
        assert [row["revoked_at"] for row in await rows_of(onlooker, LoginSession)] == [None] * 2


Rotate = Callable[[AsyncSession, Bearer], Awaitable[TokenGrant]]


async def rotate_unlocked(session: AsyncSession, bearer: Bearer) -> TokenGrant:
    """Rotate without locking, trusting what was read."""
    successor = successor_id(bearer.token_id)
    reading = select(LoginSession.refresh_hash, database_now())
    current, instant = (
        await session.execute(reading.where(LoginSession.id == bearer.session_id))
    ).one()
    presented, old = hash_of(bearer.token_id), SupersededToken.token_hash
    if current != presented:
        superseding = select(SupersededToken.superseded_at).where(old == presented)
        instant = (await session.execute(superseding)).scalar_one()
    else:
        await session.execute(
            update(LoginSession).values(refresh_hash=hash_of(successor), last_used_at=instant)
        )
        known = (await session.execute(select(old).where(old == presented))).one_or_none()
        if known is None:
            row = {"token_hash": presented, "superseded_at": instant}
            await session.execute(insert(SupersededToken).values(row))
    return TokenGrant(*bearer[:2], Role.USER, successor, instant, instant + LIFETIMES.refresh)


class TestRace:
    """Fifty concurrent rotations, half of them in each of two instances."""

    @staticmethod
    async def successors(store: Database, other: Database, rotate: Rotate) -> list[int]:
        """Return the number of different successors in each of five rounds."""
        grant = await begin(store)
        counts = []
        for _ in range(5):
            bearer = bearer_of(grant)
            racing = [
                database.transaction(rotate, bearer)
                for _ in range(25)
                for database in (store, other)
            ]
            outcomes = await asyncio.gather(*racing, return_exceptions=True)
            grants = {each for each in outcomes if isinstance(each, TokenGrant)}
            counts.append(len(grants) + sum(not isinstance(each, TokenGrant) for each in outcomes))
            grant = grants.pop()
        return counts

    async def test_concurrent_rotations_have_one_successor(
        self, store: Database, opened: Open
    ) -> None:
        assert await self.successors(store, opened(), rotate_stored) == [1] * 5
        assert len(await rows_of(store, SupersededToken)) == 5
        assert (await the_session(store))["revoked_at"] is None

    @on_servers
    async def test_control_unlocked_rotations_have_several_successors(
        self, store: Database, opened: Open
    ) -> None:
        assert max(await self.successors(store, opened(), rotate_unlocked)) > 1

    async def test_session_ended_during_rotation_has_no_successor(
        self, store: Database, opened: Open
    ) -> None:
        other = opened()
        for _ in range(10):
            bearer = bearer_of(await begin(store))

            await asyncio.gather(
                store.transaction(rotate_stored, bearer),
                other.transaction(sessions.end, session_id=bearer.session_id),
                return_exceptions=True,
            )

            with pytest.raises(SessionEnded):
                await SessionReader(store).resume(bearer)
        assert await live_ids(store) == set()


class TestLimit:
    async def test_least_recently_used_session_ends(self, store: Database) -> None:
        first, second, third = [(await begin(store, 3)).session_id for _ in range(3)]
        used_long_ago = update(LoginSession).where(LoginSession.id == second)
        await run(store, used_long_ago.values(last_used_at=now() - DAY))

        fourth = (await begin(store, 3)).session_id

        assert await live_ids(store) == {first, third, fourth}

    async def test_expired_sessions_do_not_count(self, store: Database) -> None:
        first, second, third = [(await begin(store, 3)).session_id for _ in range(3)]
        unused = update(LoginSession).where(LoginSession.id == first)
        expired = update(LoginSession).where(LoginSession.id != first)
        await run(
            store,
            unused.values(last_used_at=now() - DAY),
            expired.values(expires_at=now() - SECOND),
        )

        fourth = (await begin(store, 3)).session_id

        assert second
        assert third
        assert await live_ids(store) == {first, fourth}

    async def test_concurrent_log_ins_stay_within_the_limit(
        self, store: Database, opened: Open
    ) -> None:
        other = opened()

        await asyncio.gather(
            *(database.transaction(log_in, 3) for _ in range(10) for database in (store, other))
        )

        assert len(await live_ids(store)) == 3
        assert len(await rows_of(store, LoginSession)) == 20

    @on_sqlite
    async def test_lowered_limit_applies_at_the_next_log_in(self, store: Database) -> None:
        for _ in range(5):
            await begin(store)

        last = await begin(store, 1)

        assert await live_ids(store) == {last.session_id}
