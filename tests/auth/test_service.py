"""Account rules that requests do not reach, or not in isolation."""

import pytest
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth import accounts, service
from catalog.auth.models import Role, User
from catalog.db.database import Database
from catalog.errors import AccountUnavailable, DuplicateValue, OperatorError
from tests.support import Caller


async def sign_up(database: Database, username: str, email: str) -> User:
    return await database.transaction(
        service.sign_up, username=username, email=email, password_hash="x"
    )


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
            await database.reading(service.find_attempt, login=login, network="192.0.2.1")
            for login in ("ADA", "ada@EXAMPLE.com", "example.com", "@example.com", "bob")
        ]

        assert [attempt.user_id for attempt in attempts] == [ada.id, ada.id, None, None, None]


class TestRequireAccount:
    async def test_role_is_returned(self, ada: Caller, admin: Caller, database: Database) -> None:
        roles = [
            await database.transaction(accounts.require_account, user_id=caller.user_id or 0)
            for caller in (ada, admin)
        ]

        assert roles == [Role.USER, Role.ADMIN]

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
