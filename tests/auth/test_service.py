"""Account rules without HTTP: their decisions and their effects in the database."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth import accounts, service
from catalog.auth.accounts import Account
from catalog.auth.models import LoginSession, Role, User
from catalog.auth.passwords.login_throttle import LIMIT, count
from catalog.auth.tokens import sessions
from catalog.auth.tokens.sessions import SessionLifetimes, SessionRequest, TokenGrant
from catalog.db.database import Database
from catalog.errors import (
    AccountUnavailable,
    DuplicateValue,
    InvalidRequest,
    LastAdmin,
    LoginThrottled,
    NotFound,
    OperatorError,
    WrongPassword,
)
from tests.auth.rows import add_admin, rows_of, run
from tests.db.support import run_on
from tests.support import Caller

DAY = timedelta(days=1)
SESSION_REQUEST = SessionRequest(
    "192.0.2.1", "curl", SessionLifetimes(refresh=DAY, session=DAY), limit=10
)


async def sign_up(database: Database, username: str, email: str) -> User:
    return await database.transaction(
        service.sign_up, username=username, email=email, password_hash="x"
    )


async def account_of(database: Database, login: str) -> Account:
    attempt = await run_on(
        database.connection(), service.find_attempt, login=login, network="192.0.2.1"
    )
    assert attempt.account is not None
    return attempt.account


async def begin(database: Database, user_id: int) -> TokenGrant:
    return await database.transaction(
        sessions.begin, user_id=user_id, role=Role.USER, session_request=SESSION_REQUEST
    )


async def live_sessions(database: Database) -> list[int]:
    rows = await rows_of(database, LoginSession)
    return [row["id"] for row in rows if row["revoked_at"] is None]


async def disable(database: Database, user_id: int) -> None:
    await run(database, update(User).where(User.id == user_id).values(disabled=True))


async def throttle(database: Database, subject: str) -> None:
    for _ in range(LIMIT):
        await database.transaction(count, subject=subject)


class TestSignUp:
    async def test_transaction_continues_after_a_refused_sign_up(self, database: Database) -> None:
        await sign_up(database, "ada", "ada@example.com")

        async def take_another(session: AsyncSession) -> User:
            with pytest.raises(DuplicateValue):
                await service.sign_up(
                    session, username="ADA", email="x@example.com", password_hash="x"
                )
            return await service.sign_up(
                session, username="bob", email="x@example.com", password_hash="x"
            )

        bob = await database.transaction(take_another)

        assert bob.username == "bob"
        with pytest.raises(DuplicateValue):
            await sign_up(database, "bob", "bob@example.com")

    @pytest.mark.parametrize(
        ("username", "email", "taken"),
        [
            ("ADA", "x@example.com", ["/username"]),
            ("eve", "Ada@example.com", ["/email"]),
            ("Ada", "ada@example.com", ["/username", "/email"]),
        ],
    )
    async def test_refusal_names_the_taken_fields(
        self, database: Database, username: str, email: str, taken: list[str]
    ) -> None:
        await sign_up(database, "ada", "ada@example.com")

        with pytest.raises(DuplicateValue) as refusal:
            await sign_up(database, username, email)

        assert [error.name for error in refusal.value.errors] == taken
        assert all(error.place == "pointer" for error in refusal.value.errors)

    async def test_first_session_begins_with_the_account(self, database: Database) -> None:
        user, grant = await database.transaction(
            service.sign_up_and_in,
            username="ada",
            email="ada@example.com",
            password_hash="x",
            session_request=SESSION_REQUEST,
        )

        assert (grant.user_id, grant.role) == (user.id, Role.USER)
        assert await live_sessions(database) == [grant.session_id]

    async def test_name_of_a_deleted_account_can_be_taken(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")

        async def remove(session: AsyncSession) -> None:
            await session.execute(delete(User).where(User.id == ada.id))

        await database.transaction(remove)

        assert (await sign_up(database, "ADA", "ada@example.com")).id != ada.id


class TestFindAttempt:
    async def test_at_sign_tells_an_email_from_a_username(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")

        attempts = [
            await run_on(
                database.connection(), service.find_attempt, login=login, network="192.0.2.1"
            )
            for login in ("ADA", "ada@EXAMPLE.com", "example.com", "@example.com", "bob")
        ]

        assert [attempt.user_id for attempt in attempts] == [ada.id, ada.id, None, None, None]

    async def test_throttled_account_is_found_with_the_refusal(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        before = await run_on(
            database.connection(), service.find_attempt, login="ada", network="192.0.2.1"
        )
        assert before.refusal is None
        await throttle(database, before.subject)

        attempt = await run_on(
            database.connection(), service.find_attempt, login="ada", network="192.0.2.1"
        )
        elsewhere = await run_on(
            database.connection(), service.find_attempt, login="ada", network="192.0.2.2"
        )
        own = await run_on(
            database.connection(), service.find_own_attempt, user_id=ada.id, network="192.0.2.1"
        )

        assert attempt.user_id == own.user_id == ada.id
        assert attempt.subject == own.subject == before.subject
        assert isinstance(attempt.refusal, LoginThrottled)
        assert isinstance(own.refusal, LoginThrottled)
        assert elsewhere.refusal is None

    async def test_own_account_must_be_usable(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        await disable(database, ada.id)

        for user_id in (ada.id, ada.id + 1):
            with pytest.raises(AccountUnavailable):
                await run_on(
                    database.connection(),
                    service.find_own_attempt,
                    user_id=user_id,
                    network="192.0.2.1",
                )


class TestLogIn:
    async def log_in(self, database: Database, account: Account) -> TokenGrant | None:
        return await database.transaction(
            service.log_in, account=account, subject="s", session_request=SESSION_REQUEST
        )

    async def test_session_begins_with_the_current_role(self, database: Database) -> None:
        await sign_up(database, "ada", "ada@example.com")
        account = await account_of(database, "ada")
        await run(database, update(User).values(role=Role.ADMIN))

        grant = await self.log_in(database, account)

        assert grant is not None
        assert (grant.user_id, grant.role) == (account.id, Role.ADMIN)
        assert await live_sessions(database) == [grant.session_id]

    @pytest.mark.parametrize("change", [{"disabled": True}, {"password_hash": "y"}])
    async def test_account_changed_after_its_verification_gets_no_session(
        self, database: Database, change: dict[str, Any]
    ) -> None:
        await sign_up(database, "ada", "ada@example.com")
        account = await account_of(database, "ada")
        await run(database, update(User).values(change))

        assert await self.log_in(database, account) is None
        assert await live_sessions(database) == []

    async def test_account_deleted_after_its_verification_gets_no_session(
        self, database: Database
    ) -> None:
        await sign_up(database, "ada", "ada@example.com")
        account = await account_of(database, "ada")
        await run(database, delete(User))

        assert await self.log_in(database, account) is None

    async def test_throttled_account_gets_no_session(self, database: Database) -> None:
        await sign_up(database, "ada", "ada@example.com")
        account = await account_of(database, "ada")
        await throttle(database, "s")

        with pytest.raises(LoginThrottled):
            await self.log_in(database, account)

        assert await live_sessions(database) == []


class TestChangePassword:
    async def change(self, database: Database, account: Account, session_id: int) -> list[int]:
        return await database.transaction(
            accounts.change_password,
            subject="s",
            account=account,
            new_hash="y",
            session_id=session_id,
        )

    async def test_other_sessions_end(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        bob = await sign_up(database, "bob", "bob@example.com")
        first, second = [(await begin(database, ada.id)).session_id for _ in range(2)]
        other = (await begin(database, bob.id)).session_id

        ended = await self.change(database, await account_of(database, "ada"), first)

        assert ended == [second]
        assert await live_sessions(database) == [first, other]
        hashes = [row["password_hash"] for row in await rows_of(database, User)]
        assert hashes == ["y", "x"]

    async def test_concurrent_change_wins_once(self, database: Database) -> None:
        await sign_up(database, "ada", "ada@example.com")
        account = await account_of(database, "ada")
        await self.change(database, account, 0)

        with pytest.raises(WrongPassword):
            await self.change(database, account, 0)

    async def test_throttled_account_keeps_its_password(self, database: Database) -> None:
        await sign_up(database, "ada", "ada@example.com")
        await throttle(database, "s")

        with pytest.raises(LoginThrottled):
            await self.change(database, await account_of(database, "ada"), 0)

    async def test_hash_of_a_disabled_account_is_not_replaced(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        await disable(database, ada.id)

        replaced = await database.transaction(
            accounts.replace_hash, user_id=ada.id, old_hash="x", new_hash="y"
        )

        assert replaced is False


class TestNamedAccount:
    """Changes that an operator makes to an account, chosen by its name."""

    async def test_password_is_reset_and_sessions_end(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        await begin(database, ada.id)
        await begin(database, ada.id)

        reset = await database.transaction(
            accounts.reset_password, login="ADA@example.com", password_hash="y"
        )

        assert reset == ("ada", ([1, 2], []))
        assert (await account_of(database, "ada")).password_hash == "y"
        assert await live_sessions(database) == []

    async def test_sessions_end(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        await begin(database, ada.id)

        assert await database.transaction(accounts.end_sessions, login="Ada") == 1
        assert await live_sessions(database) == []

    async def test_id_is_found(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")

        assert await database.transaction(accounts.account_id, login="ADA") == ada.id

    async def test_unknown_name_is_not_found(self, database: Database) -> None:
        with pytest.raises(NotFound, match="'ada'"):
            await database.transaction(accounts.account_id, login="ada")


class TestChangeEmail:
    async def test_address_is_changed_and_folded(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")

        changed = await database.transaction(
            accounts.change_email, user_id=ada.id, email="Ada@example.org"
        )

        assert (changed["id"], changed["email"]) == (ada.id, "Ada@example.org")
        assert (await account_of(database, "ada@example.org")).id == ada.id

    async def test_address_of_another_account_is_taken(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        await sign_up(database, "bob", "bob@example.com")

        with pytest.raises(DuplicateValue) as refusal:
            await database.transaction(
                accounts.change_email, user_id=ada.id, email="BOB@example.com"
            )

        assert [error.name for error in refusal.value.errors] == ["/email"]

    async def test_disabled_account_is_refused(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        await disable(database, ada.id)

        with pytest.raises(AccountUnavailable):
            await database.transaction(accounts.change_email, user_id=ada.id, email="a@b.example")
        with pytest.raises(AccountUnavailable):
            await run_on(database.connection(), accounts.read_own, user_id=ada.id)


class TestDeleteAccount:
    async def delete(self, database: Database, account: Account) -> tuple[list[int], list[int]]:
        """Return the ids of the ended sessions, and of the accounts whose data were deleted."""
        emptied: list[int] = []

        async def empty(_: AsyncSession, user_id: int) -> bool:
            emptied.append(user_id)
            return True

        ended = await database.transaction(
            accounts.delete_account, subject="s", account=account, on_account_delete=empty
        )
        assert ended is not None
        return ended.sessions, emptied

    async def test_account_and_its_sessions_stay_until_its_other_data_are_deleted(
        self, database: Database
    ) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        session_id = (await begin(database, ada.id)).session_id
        left = [2, 1, 0]

        async def empty(_: AsyncSession, user_id: int) -> bool:
            assert user_id == ada.id
            return left.pop(0) == 0

        account = await account_of(database, "ada")
        ended = [
            await database.transaction(
                accounts.delete_account, subject="s", account=account, on_account_delete=empty
            )
            for _ in range(3)
        ]

        assert ended[:2] == [None, None]
        assert ended[2] is not None
        assert ended[2].sessions == [session_id]

    async def test_account_its_data_and_the_origins_of_its_sessions_go(
        self, database: Database
    ) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        bob = await sign_up(database, "bob", "bob@example.com")
        session_id = (await begin(database, ada.id)).session_id
        await begin(database, bob.id)

        ended, emptied = await self.delete(database, await account_of(database, "ada"))

        assert (ended, emptied) == ([session_id], [ada.id])
        assert [row["id"] for row in await rows_of(database, User)] == [bob.id]
        origins = [(row["address"], row["agent"]) for row in await rows_of(database, LoginSession)]
        assert origins == [("", ""), ("192.0.2.1", "curl")]

    async def test_password_changed_since_it_was_verified_is_wrong(
        self, database: Database
    ) -> None:
        await sign_up(database, "ada", "ada@example.com")
        account = await account_of(database, "ada")

        with pytest.raises(WrongPassword):
            await self.delete(database, account._replace(password_hash="y"))

        assert len(await rows_of(database, User)) == 1

    async def test_throttled_account_stays(self, database: Database) -> None:
        await sign_up(database, "ada", "ada@example.com")
        await throttle(database, "s")

        with pytest.raises(LoginThrottled):
            await self.delete(database, await account_of(database, "ada"))

    async def test_last_administrator_stays(self, database: Database) -> None:
        await database.transaction(add_admin)
        await database.transaction(add_admin, "hopper")
        await self.delete(database, await account_of(database, "grace"))

        with pytest.raises(LastAdmin):
            await self.delete(database, await account_of(database, "hopper"))


class TestNewPassword:
    @pytest.mark.parametrize("pointer", ["/password", "/new_password"])
    def test_refusal_names_the_field(self, pointer: str) -> None:
        names = {"username": "ada", "email": "ada@example.com", "pointer": pointer}
        with pytest.raises(InvalidRequest) as refusal:
            service.check_new_password("short", min_length=8, refuse_guessable=False, **names)

        (error,) = refusal.value.errors
        assert (error.place, error.name) == ("pointer", pointer)
        assert error.message == f"{pointer.removeprefix('/')} must have 8 to 128 characters."


class TestRequireAccount:
    async def test_role_is_returned(self, ada: Caller, admin: Caller, database: Database) -> None:
        roles = [
            await database.transaction(accounts.require_account, user_id=caller.user_id or 0)
            for caller in (ada, admin)
        ]

        assert roles == [Role.USER, Role.ADMIN]

    async def test_usable_roles_are_those_of_enabled_accounts(self, database: Database) -> None:
        ada = await sign_up(database, "ada", "ada@example.com")
        bob = await sign_up(database, "bob", "bob@example.com")
        await disable(database, bob.id)

        usable = await database.transaction(
            accounts.usable_roles, user_ids=[bob.id, ada.id, bob.id + 1]
        )

        assert usable == {ada.id: Role.USER}
        with pytest.raises(AccountUnavailable):
            await database.transaction(accounts.require_account, user_id=bob.id)

    async def test_missing_account_is_refused(self, database: Database) -> None:
        with pytest.raises(AccountUnavailable):
            await database.transaction(accounts.require_account, user_id=1)


class TestHasAdmin:
    async def test_user_is_no_administrator(self, ada: Caller, database: Database) -> None:
        assert ada.user_id
        assert not await database.transaction(accounts.has_admin)

    async def test_administrator_is_found(self, admin: Caller, database: Database) -> None:
        assert admin.user_id
        assert await database.transaction(accounts.has_admin)


class TestCheckAdmin:
    def test_values_valid_at_sign_up_are_accepted(self) -> None:
        check_admin("x" * 12, min_length=12)
        check_admin("password1")

    def test_all_faults_are_reported(self) -> None:
        with pytest.raises(OperatorError) as refusal:
            check_admin("short", username="a", email="admin")

        lines = refusal.value.detail.splitlines()
        assert len(lines) == 3
        for line, label in zip(lines, ("username", "e-mail address", "password"), strict=True):
            assert line.startswith(f"The administrator's {label} ")
            assert line.endswith(".")
            assert "short" not in line

    @pytest.mark.parametrize("password", ["e\u0301" * 7, "x" * 129])
    def test_password_length_is_counted_as_at_sign_up(self, password: str) -> None:
        with pytest.raises(OperatorError, match="8 to 128"):
            check_admin(password)

    @pytest.mark.parametrize("password", ["Password1", "root-1234", "Root@example.com"])
    def test_password_is_checked_as_at_sign_up(self, password: str) -> None:
        with pytest.raises(OperatorError, match=r"^The administrator's password must not be "):
            check_admin(password, refuse_guessable=True)


def check_admin(
    password: str,
    *,
    username: str = "root",
    email: str = "root@example.com",
    min_length: int = 8,
    refuse_guessable: bool = False,
) -> None:
    service.check_admin(
        username=username,
        email=email,
        password=password,
        min_length=min_length,
        refuse_guessable=refuse_guessable,
    )


async def test_rows_hold_the_folded_names(database: Database) -> None:
    await sign_up(database, "\uff21da", "Ada@Example.com")

    async def read(session: AsyncSession) -> tuple[str, str]:
        user = (await session.scalars(select(User))).one()
        return user.username_key, user.email_key

    assert await database.transaction(read) == ("ada", "ada@example.com")
