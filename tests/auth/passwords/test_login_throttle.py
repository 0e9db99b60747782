"""Wrong passwords are counted by account and network, across all instances and restarts."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest
from argon2 import PasswordHasher
from quart import Quart
from sqlalchemy import URL, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.app import create_app
from catalog.auth.models import User, WrongGuesses
from catalog.auth.passwords import login_throttle
from catalog.auth.passwords.hashing import Passwords
from catalog.db.columns import database_now
from catalog.db.database import Database
from catalog.settings import Settings
from tests.auth.rows import disable
from tests.db.support import PATIENT, locked_by_another_process, on_servers, on_sqlite, run_on
from tests.engines import settings_for
from tests.faults.proxy import relayed
from tests.http.wire import JSON, exchange
from tests.support import PASSWORD, Caller, Response, at_once, problem_of

WRONG = "wrong password"
HERE, ELSEWHERE = "192.0.2.7", "192.0.2.8"

WRONG_TOLD = (401, "credentials-wrong")
REFUSED = (429, "too-many-guesses")

# Valid and cheap to verify; it has more passes than the settings ask for, so it is not rehashed.
CHEAP = PasswordHasher(time_cost=3, memory_cost=8, parallelism=1).hash(PASSWORD)


@pytest.fixture
def settings(database_url: URL, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings without request limits; the password queue holds all of a test."""
    monkeypatch.setattr("catalog.app.Passwords", partial(Passwords, max_queued=1000))
    return settings_for(database_url, login_limit="off")


@pytest.fixture
async def cheap_ada(ada: Caller, database: Database) -> Caller:
    """Return an account whose password is cheap to verify, for tests with hundreds of attempts."""

    async def cheapen(session: AsyncSession) -> None:
        await session.execute(
            update(User).where(User.id == ada.user_id).values(password_hash=CHEAP)
        )

    await database.transaction(cheapen)
    return ada


async def log_in(
    app: Quart, login: str = "ada", password: str = WRONG, *, address: str = HERE
) -> Response:
    """Try a password from an address; without a peer address, X-Forwarded-For is trusted."""
    return await Caller(app).post(
        "/api/auth/login",
        json={"username": login, "password": password},
        headers={"X-Forwarded-For": address},
    )


async def insist(
    app: Quart, login: str = "ada", password: str = WRONG, *, address: str = HERE
) -> Response:
    """Log in, and retry on 503, which many concurrent log-ins may get where the disk is slow."""
    while (answer := await log_in(app, login, password, address=address)).status_code == 503:
        pass
    return answer


async def use_up(app: Quart, login: str = "ada", *, address: str = HERE, times: int = 10) -> None:
    for _ in range(times):
        assert problem_of(await log_in(app, login, address=address)) == WRONG_TOLD


async def rows(database: Database) -> list[tuple[str, list[int], datetime]]:
    """Return the stored rows: subject, times in microseconds, expiry."""

    async def read(connection: AsyncConnection) -> list[tuple[str, list[int], datetime]]:
        columns = (WrongGuesses.subject, WrongGuesses.times, WrongGuesses.expires_at)
        found = await connection.execute(select(*columns).order_by(WrongGuesses.subject))
        return [(subject, [int(t) for t in times.split()], at) for subject, times, at in found]

    return await run_on(database.connection(), read)


async def age(database: Database, by: timedelta, *, count: int = 10) -> None:
    """Move the oldest times back by a duration."""

    async def move(session: AsyncSession) -> None:
        for subject, times, _ in await rows(database):
            moved = [t - by // timedelta(microseconds=1) for t in times[:count]] + times[count:]
            await session.execute(
                update(WrongGuesses)
                .where(WrongGuesses.subject == subject)
                .values(times=" ".join(map(str, moved)))
            )

    await database.transaction(move)


class TestLimit:
    async def test_eleventh_attempt_is_refused_without_verifying_the_password(
        self, app: Quart, ada: Caller, verifications: list[tuple[str, str]]
    ) -> None:
        told = [await log_in(app) for _ in range(10)]
        refused = [await log_in(app), await log_in(app), await log_in(app, password=PASSWORD)]

        assert [problem_of(answer) for answer in told] == [WRONG_TOLD] * 10
        assert len({answer.json["detail"] for answer in told}) == 1
        assert [problem_of(answer) for answer in refused] == [REFUSED] * 3
        # Less the time that the attempts took, which is a minute at most, even on a busy machine.
        assert all(240 <= int(answer.headers["Retry-After"]) <= 300 for answer in refused)
        assert [password for _, password in verifications] == [WRONG] * 10
        assert ada.user_id

    async def test_owner_at_another_address_is_not_throttled(
        self, app: Quart, cheap_ada: Caller
    ) -> None:
        await use_up(app)

        answer = await log_in(app, password=PASSWORD, address=ELSEWHERE)

        assert answer.status_code == 200
        assert answer.json["user"]["id"] == cheap_ada.user_id

    @on_sqlite
    async def test_other_account_at_the_address_is_not_throttled(
        self, app: Quart, cheap_ada: Caller, bob: Caller
    ) -> None:
        await use_up(app)

        assert (await log_in(app, "bob", PASSWORD)).json["user"]["id"] == bob.user_id
        assert cheap_ada.user_id

    @on_sqlite
    async def test_right_password_does_not_reset_the_count(
        self, app: Quart, cheap_ada: Caller
    ) -> None:
        await use_up(app, times=9)

        assert (await log_in(app, password=PASSWORD)).status_code == 200
        await use_up(app, times=1)

        assert problem_of(await log_in(app, password=PASSWORD)) == REFUSED
        assert cheap_ada.user_id

    async def test_spellings_and_email_of_an_account_share_a_count(
        self, app: Quart, cheap_ada: Caller
    ) -> None:
        logins = ["ada", "ADA", "\uff21\uff24\uff21", "ada@example.com", "Ada@EXAMPLE.com"] * 2

        for login in logins:
            assert problem_of(await log_in(app, login)) == WRONG_TOLD

        for login in logins[:5]:
            assert problem_of(await log_in(app, login, PASSWORD)) == REFUSED
        assert cheap_ada.user_id

    @on_sqlite
    async def test_unknown_name_does_not_share_the_count_of_an_account_id(
        self, app: Quart, cheap_ada: Caller
    ) -> None:
        assert cheap_ada.user_id == 1
        await use_up(app, "1")

        assert problem_of(await log_in(app, "1")) == REFUSED
        assert (await log_in(app, password=PASSWORD)).status_code == 200


@on_sqlite
class TestUnknownName:
    async def test_unknown_name_is_treated_like_a_known_or_disabled_account(
        self,
        app: Quart,
        ada: Caller,
        bob: Caller,
        database: Database,
        verifications: list[tuple[str, str]],
    ) -> None:
        await database.transaction(disable, bob.user_id)

        def seen(answer: Response) -> tuple[object, ...]:
            told = {name: each for name, each in answer.json.items() if name != "request_id"}
            names = sorted(name.lower() for name, _ in answer.headers.items())
            return answer.status_code, told, names

        courses = {
            login: [seen(await log_in(app, login)) for _ in range(12)]
            for login in ("ada", "bob", "nobody", "nobody@example.com")
        }

        assert ada.user_id
        assert [course[0] for course in courses["ada"]] == [401] * 10 + [429] * 2
        assert all(course == courses["ada"] for course in courses.values())
        # The cost is the same too: one verification for each of the 40 answered attempts.
        assert len(verifications) == 40

    async def test_spellings_of_an_unknown_name_share_a_count(self, app: Quart) -> None:
        for login in ["nobody", "NOBODY", "No\uff42ody", "\uff2eobody", "nObody"] * 2:
            assert problem_of(await log_in(app, login)) == WRONG_TOLD

        assert problem_of(await log_in(app, "NoBoDy")) == REFUSED
        assert problem_of(await log_in(app, "somebody")) == WRONG_TOLD


@on_sqlite
class TestNetwork:
    @pytest.mark.parametrize(
        ("address", "same", "other"),
        [
            ("192.0.2.7", "::ffff:192.0.2.7", "192.0.2.8"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1"),
            ("2001:DB8::1", "2001:0db8:0000:0000:1234::", "2001:db8:0:1::1"),
        ],
        ids=["IPv4", "IPv6", "spellings"],
    )
    async def test_ipv6_network_of_64_bits_is_one_client(
        self, app: Quart, cheap_ada: Caller, address: str, same: str, other: str
    ) -> None:
        await use_up(app, address=address)

        assert problem_of(await log_in(app, password=PASSWORD, address=same)) == REFUSED
        assert (await log_in(app, password=PASSWORD, address=other)).status_code == 200
        assert cheap_ada.user_id

    async def test_forwarded_address_of_an_untrusted_peer_is_ignored(
        self, settings: Settings, app: Quart, cheap_ada: Caller
    ) -> None:
        behind = create_app(
            settings_for(settings.database_url, login_limit="off", trusted_proxies="10.0.0.0/8")
        )

        async def guess(peer: str, forwarded: str) -> tuple[int, str]:
            body = f'{{"username": "ada", "password": "{WRONG}"}}'.encode()
            headers = [JSON, (b"x-forwarded-for", forwarded.encode())]
            answer = await exchange(
                behind, "POST", "/api/auth/login", headers=headers, body=[body], client=(peer, 5)
            )
            return problem_of(answer)

        async with behind.test_app():
            # An outside client forges addresses, directly and through the proxy.
            told = [await guess("198.51.100.9", f"192.0.2.{n}") for n in range(5)]
            told += [await guess("10.0.0.1", f"192.0.2.{n}, 198.51.100.9") for n in range(5)]

            assert told == [WRONG_TOLD] * 10
            assert await guess("10.0.0.2", "198.51.100.9") == REFUSED
            assert await guess("10.0.0.1", "198.51.100.8") == WRONG_TOLD
        assert cheap_ada.app is app


async def count_only(session: AsyncSession, *, subject: str) -> None:
    """Count a wrong password without checking the limit."""
    now = (await session.execute(select(database_now()))).scalar_one()
    mine = select(WrongGuesses).where(WrongGuesses.subject == subject).with_for_update()
    row = (await session.scalars(mine)).one_or_none()
    if row is None:
        row = WrongGuesses(subject=subject, times="", expires_at=now + login_throttle.WINDOW)
        session.add(row)
    row.times += f" {int(now.timestamp() * 1e6)}"


class TestConcurrentAttempts:
    async def test_ten_of_two_hundred_from_one_address_are_checked(
        self, app: Quart, cheap_ada: Caller
    ) -> None:
        answers = await at_once(200, lambda _: insist(app))

        assert Counter(problem_of(answer) for answer in answers) == {WRONG_TOLD: 10, REFUSED: 190}
        assert (await log_in(app, password=PASSWORD, address=ELSEWHERE)).status_code == 200
        assert cheap_ada.user_id

    async def test_control_more_are_checked_without_the_limit_in_count(
        self, app: Quart, cheap_ada: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Control of the test above: passwords are verified concurrently."""
        monkeypatch.setattr(login_throttle, "count", count_only)

        answers = await at_once(14, lambda _: insist(app))

        assert Counter(answer.status_code for answer in answers)[401] > 10
        assert problem_of(await log_in(app)) == REFUSED
        assert cheap_ada.user_id

    async def test_two_hundred_from_two_hundred_addresses_are_checked(
        self, app: Quart, cheap_ada: Caller
    ) -> None:
        answers = []
        for first in range(0, 200, 25):
            batch = [f"198.51.100.{first + n}" for n in range(25)]
            answers += await asyncio.gather(*(insist(app, address=each) for each in batch))

        assert Counter(problem_of(answer) for answer in answers) == {WRONG_TOLD: 200}
        assert (await log_in(app, password=PASSWORD)).status_code == 200
        assert cheap_ada.user_id

    async def test_right_passwords_all_log_in_after_nine_wrong_ones(
        self, app: Quart, cheap_ada: Caller
    ) -> None:
        await use_up(app, times=9)

        answers = await at_once(64, lambda _: insist(app, password=PASSWORD))

        assert Counter(answer.status_code for answer in answers) == {200: 64}
        assert cheap_ada.user_id

    async def test_right_passwords_all_log_in_while_the_hash_is_replaced(
        self, app: Quart, cheap_ada: Caller, database: Database, onlooker: Database
    ) -> None:
        """Each log-in reads an outdated hash, and all but one find it replaced meanwhile."""
        outdated = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)

        async def weaken(session: AsyncSession) -> None:
            await session.execute(update(User).values(password_hash=outdated))

        await database.transaction(weaken)

        answers = await at_once(12, lambda _: insist(app, password=PASSWORD))

        assert Counter(answer.status_code for answer in answers) == {200: 12}
        assert await rows(onlooker) == []
        assert cheap_ada.user_id

    async def test_two_instances_share_a_count(
        self, app: Quart, settings: Settings, cheap_ada: Caller
    ) -> None:
        other = create_app(settings)
        async with other.test_app():
            answers = await at_once(40, lambda n: insist((app, other)[n % 2]))

            told = Counter(problem_of(answer) for answer in answers)
            assert told == {WRONG_TOLD: 10, REFUSED: 30}
            for each in (app, other):
                assert problem_of(await log_in(each, password=PASSWORD)) == REFUSED
        assert cheap_ada.user_id


class TestWindow:
    async def test_expiry_of_the_oldest_attempt_allows_one_more(
        self, app: Quart, cheap_ada: Caller, onlooker: Database
    ) -> None:
        await use_up(app)

        await age(onlooker, timedelta(minutes=5), count=1)

        await use_up(app, times=1)
        assert problem_of(await log_in(app, password=PASSWORD)) == REFUSED
        assert cheap_ada.user_id

    @on_sqlite
    async def test_retry_after_is_the_expiry_of_the_oldest_attempt(
        self, app: Quart, cheap_ada: Caller, onlooker: Database
    ) -> None:
        await use_up(app)

        await age(onlooker, timedelta(minutes=4), count=1)

        answer = await log_in(app)
        assert problem_of(answer) == REFUSED
        assert 50 <= int(answer.headers["Retry-After"]) <= 60
        assert cheap_ada.user_id

    async def test_ten_attempts_are_allowed_again_after_five_minutes(
        self, app: Quart, cheap_ada: Caller, onlooker: Database
    ) -> None:
        await use_up(app)
        await age(onlooker, timedelta(minutes=5))

        assert (await log_in(app, password=PASSWORD)).status_code == 200
        await use_up(app)

        assert problem_of(await log_in(app, password=PASSWORD)) == REFUSED
        assert cheap_ada.user_id


class TestStoredRow:
    async def test_count_is_committed_with_each_response(
        self, app: Quart, cheap_ada: Caller, onlooker: Database
    ) -> None:
        for count in range(1, 11):
            await use_up(app, times=1)

            ((_, times, _),) = await rows(onlooker)
            assert len(times) == count
            assert times == sorted(times)
        assert cheap_ada.user_id

    async def test_refused_attempts_do_not_change_the_row(
        self, app: Quart, cheap_ada: Caller, onlooker: Database
    ) -> None:
        await use_up(app)
        before = await rows(onlooker)

        for _ in range(20):
            assert problem_of(await log_in(app)) == REFUSED

        assert await rows(onlooker) == before
        ((subject, times, expires_at),) = before
        assert (len(subject), len(times)) == (64, 10)
        assert timedelta(minutes=5).total_seconds() == expires_at.timestamp() - times[-1] / 1e6
        assert cheap_ada.user_id

    @on_sqlite
    async def test_row_has_neither_name_nor_address(self, app: Quart, onlooker: Database) -> None:
        # Users type passwords into the wrong field.
        await use_up(app, "correct horse battery staple", times=1)

        ((subject, _, _),) = await rows(onlooker)
        assert set(subject) <= set("0123456789abcdef")

    async def test_count_survives_a_restart(self, settings: Settings) -> None:
        first, second = create_app(settings), create_app(settings)
        async with first.test_app():
            await Caller.signed_up(first, "ada")
            await use_up(first)

        async with second.test_app():
            assert problem_of(await log_in(second, password=PASSWORD)) == REFUSED
            elsewhere = await log_in(second, password=PASSWORD, address=ELSEWHERE)
            assert elsewhere.status_code == 200


class TestSweep:
    async def test_sweep_deletes_expired_rows_only(self, database: Database) -> None:
        async def add(session: AsyncSession) -> None:
            now = (await session.execute(select(database_now()))).scalar_one()
            for name, seconds in (("old", -1), ("older", -600), ("new", 60), ("newer", 300)):
                expires_at = now + timedelta(seconds=seconds)
                values = {"subject": name, "times": "1", "expires_at": expires_at}
                await session.execute(insert(WrongGuesses).values(values))

        await database.transaction(add)

        gone = await database.transaction(login_throttle.sweep, limit=1000)

        assert gone == 2
        assert [subject for subject, _, _ in await rows(database)] == ["new", "newer"]
        assert await database.transaction(login_throttle.sweep, limit=1000) == 0

    @on_sqlite
    async def test_sweep_deletes_at_most_its_limit(self, database: Database) -> None:
        async def add(session: AsyncSession) -> None:
            now = (await session.execute(select(database_now()))).scalar_one()
            past = now - timedelta(seconds=1)
            values = [{"subject": str(n), "times": "1", "expires_at": past} for n in range(25)]
            await session.execute(insert(WrongGuesses), values)

        await database.transaction(add)

        gone = [await database.transaction(login_throttle.sweep, limit=10) for _ in range(4)]

        assert gone == [10, 10, 5, 0]

    async def test_concurrent_sweep_loses_no_attempt(
        self, app: Quart, cheap_ada: Caller, database: Database
    ) -> None:
        """A row that has expired and is used again during the sweep stays."""
        for _ in range(3):
            await use_up(app, times=1)
            await outdate(database)
            await asyncio.gather(
                database.transaction(login_throttle.sweep, limit=10),
                use_up(app, times=1),
            )

            ((_, times, _),) = await rows(database)
            assert len(times) == 1
            await empty(database)
        assert cheap_ada.user_id


async def outdate(database: Database) -> None:
    async def change(session: AsyncSession) -> None:
        past = (await session.execute(select(database_now()))).scalar_one() - timedelta(hours=1)
        await session.execute(update(WrongGuesses).values(expires_at=past, times="1"))

    await database.transaction(change)


async def empty(database: Database) -> None:
    async def change(session: AsyncSession) -> None:
        await session.execute(WrongGuesses.__table__.delete())  # type: ignore[attr-defined]  # a Table

    await database.transaction(change)


@pytest.fixture
def on_verifying(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return callbacks that run just before a password is verified, in the hashing thread."""
    callbacks: list[object] = []
    verify = PasswordHasher.verify

    def calling(hasher: PasswordHasher, password_hash: str, password: str) -> object:
        for callback in callbacks:
            assert callable(callback)
            callback()
        return verify(hasher, password_hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", calling)
    return callbacks


class TestOutage:
    """Without a count the answer is the same for a right and a wrong password."""

    @on_servers
    @pytest.mark.parametrize("password", [WRONG, PASSWORD], ids=["wrong", "right"])
    async def test_database_lost_while_hashing_gives_no_free_guess(
        self, settings: Settings, on_verifying: list[object], password: str
    ) -> None:
        async with relayed(settings.database_url) as relay:
            app = create_app(settings_for(relay.url, login_limit="off"))
            async with app.test_app():
                ada = await Caller.signed_up(app, "ada")
                await use_up(app, times=9)
                loop = asyncio.get_running_loop()
                on_verifying.append(lambda: loop.call_soon_threadsafe(relay.refuse))

                lost = await log_in(app, password=password)
                on_verifying.clear()
                await relay.listen()

                assert problem_of(lost) == (503, "database-unavailable")
                await use_up(app, times=1)
                assert problem_of(await log_in(app, password=PASSWORD)) == REFUSED
                assert ada.user_id

    @on_sqlite
    @pytest.mark.parametrize("password", [WRONG, PASSWORD], ids=["wrong", "right"])
    async def test_database_locked_for_writes_gives_no_free_guess(
        self, settings: Settings, password: str, monkeypatch: pytest.MonkeyPatch, database_url: URL
    ) -> None:
        monkeypatch.setattr("catalog.app.DEADLINES", replace(PATIENT, write=4.0))
        app = create_app(settings)
        async with app.test_app():
            await Caller.signed_up(app, "ada")
            async with locked_by_another_process(database_url):
                answer = await log_in(app, password=password)

            assert problem_of(answer) == (503, "database-busy")
        assert settings.login_limit is None


async def count_rows(database: Database) -> int:
    async def count(connection: AsyncConnection) -> int:
        return await connection.scalar(select(func.count()).select_from(WrongGuesses)) or 0

    return await run_on(database.connection(), count)


class TestOwnPassword:
    """Password checks of account changes and deletion share the throttle of log-ins."""

    async def test_wrong_passwords_share_the_count_of_log_ins(
        self, app: Quart, cheap_ada: Caller, onlooker: Database
    ) -> None:
        here = {"X-Forwarded-For": HERE}
        change = {"current_password": WRONG, "new_password": "staple battery horse"}
        deletion = {"password": WRONG}

        await use_up(app, times=8)
        changed = await cheap_ada.post("/api/auth/password", json=change, headers=here)
        deleted = await cheap_ada.send("DELETE", "/api/auth/me", json=deletion, headers=here)

        assert problem_of(changed) == (403, "password-wrong")
        assert problem_of(deleted) == (403, "password-wrong")
        assert await count_rows(onlooker) == 1
        # Even the right password is refused now.
        change["current_password"] = deletion["password"] = PASSWORD
        changed = await cheap_ada.post("/api/auth/password", json=change, headers=here)
        deleted = await cheap_ada.send("DELETE", "/api/auth/me", json=deletion, headers=here)
        assert problem_of(changed) == problem_of(deleted) == REFUSED
        assert problem_of(await log_in(app, password=PASSWORD)) == REFUSED
        # The owner at another address is not throttled.
        there = {"X-Forwarded-For": ELSEWHERE}
        changed = await cheap_ada.post("/api/auth/password", json=change, headers=there)
        assert changed.status_code == 204

    async def test_right_password_last_of_many_at_once_is_refused(
        self, cheap_ada: Caller, bob: Caller
    ) -> None:
        def change(number: int) -> dict[str, str]:
            password = PASSWORD if number == 99 else f"{WRONG} {number}"
            return {"current_password": password, "new_password": "staple battery horse"}

        answers = await at_once(
            100, lambda number: cheap_ada.post("/api/auth/password", json=change(number))
        )

        assert answers[99].status_code in {429, 503}
        assert (await log_in(bob.app, password=PASSWORD, address=ELSEWHERE)).status_code == 200

    async def test_ten_of_many_at_once_are_checked(self, cheap_ada: Caller) -> None:
        answers = await at_once(
            40,
            lambda _: cheap_ada.send("DELETE", "/api/auth/me", json={"password": WRONG}),
        )

        told = Counter(problem_of(answer) for answer in answers)
        assert told == {(403, "password-wrong"): 10, REFUSED: 30}
