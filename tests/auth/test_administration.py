"""At least one administrator is left after any concurrent changes to administrators."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import administration
from catalog.auth.accounts import Account, delete_account
from catalog.auth.administration import change_user
from catalog.auth.models import Role, User
from catalog.db.database import Database
from catalog.errors import AccountUnavailable, CatalogError, Forbidden, LastAdmin, NotFound
from catalog.products.service import delete_products_of
from tests.auth.rows import add_admin
from tests.db.support import on_servers, on_sqlite, run_on
from tests.support import PASSWORD, Caller

ROUNDS = 50

USER_ROLE: dict[str, Any] = {"role": Role.USER}
DISABLED: dict[str, Any] = {"disabled": True}
BOTH: dict[str, Any] = {**USER_ROLE, **DISABLED}


async def admins(database: Database) -> set[int]:
    """Return the ids of administrators that are not disabled."""

    async def read(connection: AsyncConnection) -> set[int]:
        able = select(User.id).where(User.role == Role.ADMIN, User.disabled.is_(False))
        return set((await connection.scalars(able)).all())

    return await run_on(database.connection(), read)


async def restore(database: Database) -> None:
    async def change(session: AsyncSession) -> None:
        await session.execute(update(User).values(role=Role.ADMIN, disabled=False))

    await database.transaction(change)


async def outcome(work: Awaitable[object]) -> type[CatalogError] | None:
    """Return the type of the error that the work raises, or None."""
    try:
        await work
    except (AccountUnavailable, Forbidden, LastAdmin) as refusal:
        return type(refusal)
    return None


def change(database: Database, user_id: int, *, by: int, to: dict[str, Any]) -> Awaitable[object]:
    return database.transaction(change_user, user_id=user_id, caller_id=by, **to)


def leave(database: Database, user_id: int, name: str) -> Awaitable[object]:
    account = Account(user_id, name, f"{name}@example.com", Role.ADMIN, False, PASSWORD)
    return database.transaction(
        delete_account,
        subject="nobody guesses",
        account=account,
        on_account_delete=delete_products_of,
    )


class TestLastAdmin:
    async def test_mutual_demotion_leaves_one_administrator(self, database: Database) -> None:
        ada, bob = [await database.transaction(add_admin, name) for name in ("ada", "bob")]

        for number in range(ROUNDS):
            to = (USER_ROLE, DISABLED, BOTH)[number % 3]
            outcomes = await asyncio.gather(
                outcome(change(database, ada, by=bob, to=to)),
                outcome(change(database, bob, by=ada, to=USER_ROLE)),
            )

            assert len(await admins(database)) == 1
            assert outcomes.count(None) == 1
            await restore(database)

    async def test_concurrent_self_demotion_leaves_one_administrator(
        self, database: Database
    ) -> None:
        ada, bob = [await database.transaction(add_admin, name) for name in ("ada", "bob")]

        for _ in range(ROUNDS // 5):
            outcomes = await asyncio.gather(
                outcome(change(database, ada, by=ada, to=USER_ROLE)),
                outcome(change(database, bob, by=bob, to=USER_ROLE)),
            )

            assert sorted(map(str, outcomes)) == sorted(map(str, (None, LastAdmin)))
            assert len(await admins(database)) == 1
            await restore(database)

    async def test_deletion_and_demotion_at_once_leave_one_administrator(
        self, database: Database
    ) -> None:
        ada = await database.transaction(add_admin, "ada")

        for number in range(ROUNDS):
            name = f"bob{number}"
            bob = await database.transaction(add_admin, name)
            by = (ada, bob)[number % 2]
            outcomes = await asyncio.gather(
                outcome(leave(database, bob, name)),
                outcome(change(database, ada, by=by, to=USER_ROLE)),
            )

            left = await admins(database)
            assert len(left) == 1
            assert outcomes.count(None) == 1
            if left == {bob}:
                # Restore one administrator for the next round.
                await change(database, ada, by=bob, to={"role": Role.ADMIN})
                await leave(database, bob, name)

    async def test_concurrent_self_deletion_leaves_one_administrator(
        self, database: Database
    ) -> None:
        ada, bob = [await database.transaction(add_admin, name) for name in ("ada", "bob")]

        outcomes = await asyncio.gather(
            outcome(leave(database, ada, "ada")), outcome(leave(database, bob, "bob"))
        )

        assert len(await admins(database)) == 1
        assert outcomes.count(LastAdmin) == 1

    @on_servers
    async def test_control_counting_without_a_lock_leaves_no_administrator(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without the lock both transactions count, and then both commit."""
        monkeypatch.setattr(administration, "keep_an_admin", counting_only(asyncio.Barrier(2)))
        ada, bob = [await database.transaction(add_admin, name) for name in ("ada", "bob")]

        await asyncio.gather(
            change(database, ada, by=bob, to=USER_ROLE),
            change(database, bob, by=ada, to=USER_ROLE),
        )

        assert await admins(database) == set()

    async def test_disabled_administrator_does_not_count(self, database: Database) -> None:
        ada, bob = [await database.transaction(add_admin, name) for name in ("ada", "bob")]
        await change(database, bob, by=ada, to=DISABLED)

        for to in (USER_ROLE, DISABLED, BOTH):
            assert await outcome(change(database, ada, by=ada, to=to)) is LastAdmin
        assert await outcome(leave(database, ada, "ada")) is LastAdmin
        # A disabled administrator can be demoted and deleted.
        assert await outcome(change(database, bob, by=ada, to=USER_ROLE)) is None
        assert await outcome(leave(database, bob, "bob")) is None
        assert await admins(database) == {ada}

    async def test_change_that_removes_no_administrator_is_allowed(
        self, database: Database
    ) -> None:
        ada = await database.transaction(add_admin, "ada")

        for to in ({}, {"role": Role.ADMIN}, {"disabled": False}):
            assert await outcome(change(database, ada, by=ada, to=to)) is None
        with pytest.raises(NotFound):
            await change(database, ada + 1, by=ada, to=USER_ROLE)
        assert await admins(database) == {ada}


def counting_only(counted: asyncio.Barrier) -> Callable[..., Awaitable[None]]:
    """Check without the lock; a barrier lets two transactions count before either writes."""

    async def count(session: AsyncSession, *, without: int) -> None:
        able = select(User.id).where(User.role == Role.ADMIN, User.disabled.is_(False))
        if set(await session.scalars(able)) == {without}:
            raise LastAdmin
        await counted.wait()

    return count


class TestDeadlock:
    async def test_concurrent_changes_to_many_accounts_do_not_deadlock(
        self, database: Database
    ) -> None:
        """All transactions lock rows in the same order, so no cycle of waits arises."""
        names = [f"admin{number}" for number in range(6)]
        everyone = [await database.transaction(add_admin, name) for name in names]

        refusals = await asyncio.gather(
            *(
                outcome(change(database, victim, by=caller, to=to))
                for caller in everyone[:2]
                for victim in everyone[2:]
                for to in (USER_ROLE, {"role": Role.ADMIN})
            )
        )

        assert refusals == [None] * len(refusals)
        assert await admins(database) >= set(everyone[:2])


class TestEndSessions:
    @on_sqlite
    async def test_ids_of_the_ended_sessions_are_returned(
        self, database: Database, admin: Caller, ada: Caller
    ) -> None:
        await Caller.logged_in(ada.app, "ada")
        listed = (await ada.get("/api/auth/sessions")).json["sessions"]
        whose = {"user_id": ada.user_id or 0, "caller_id": admin.user_id or 0}

        ended = await database.transaction(administration.end_sessions, **whose)

        assert sorted(ended) == sorted(each["id"] for each in listed)
        assert len(ended) == 2
        assert await database.transaction(administration.end_sessions, **whose) == []
