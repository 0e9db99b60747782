"""Log-ins during which the account is disabled or its password changed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth import accounts, administration
from catalog.auth.models import Role, User
from catalog.auth.tokens import sessions
from catalog.auth.tokens.sessions import TokenGrant
from catalog.db.database import Database
from tests.auth.rows import add_admin, run
from tests.auth.tokens.stored_sessions import OWNER, SUBJECT, live_ids, log_in, session_request
from tests.db.support import Open, on_servers


async def disable(session: AsyncSession) -> None:
    await administration.change_user(session, user_id=OWNER.id, caller_id=2, disabled=True)


async def change_password(session: AsyncSession) -> None:
    await accounts.change_password(
        session, subject=SUBJECT, account=OWNER, new_hash="another", session_id=0
    )


async def restore(database: Database) -> None:
    account = update(User).where(User.id == OWNER.id)
    await run(database, account.values(disabled=False, password_hash=""))


async def log_in_unlocked(session: AsyncSession) -> TokenGrant | None:
    """Log in without the lock, trusting that the account stays as it was read."""
    row = (await session.execute(select(User.disabled).where(User.id == OWNER.id))).one()
    assert not row.disabled
    return await sessions.begin(
        session, user_id=OWNER.id, role=Role.USER, session_request=session_request()
    )


each_end = pytest.mark.parametrize("end", [disable, change_password])


class TestLogInRace:
    """A correct password whose account is disabled or changed before the session begins."""

    @each_end
    async def test_session_does_not_outlive_a_closed_account(
        self, store: Database, opened: Open, end: Callable[[AsyncSession], Awaitable[None]]
    ) -> None:
        await store.transaction(add_admin)
        other = opened()
        for head_start in range(-5, 10):

            async def log_in_after(steps: int = max(0, -head_start)) -> TokenGrant | None:
                await asyncio.sleep(0.002 * steps)
                return await store.transaction(log_in)

            async def end_after(steps: int = max(0, head_start)) -> None:
                await asyncio.sleep(0.001 * steps)
                await other.transaction(end)

            racing = [log_in_after() for _ in range(3)]
            await asyncio.gather(*racing, end_after())

            assert await live_ids(store) == set()
            await restore(store)
        # Chance decides the order above.
        assert await store.transaction(log_in) is not None
        await other.transaction(end)
        assert await store.transaction(log_in) is None
        assert await live_ids(store) == set()

    @on_servers
    @pytest.mark.parametrize(
        ("enter", "left"), [(log_in, 0), (log_in_unlocked, 1)], ids=["locked", "unlocked"]
    )
    async def test_lock_prevents_a_session_on_a_disabled_account(
        self,
        store: Database,
        opened: Open,
        enter: Callable[[AsyncSession], Awaitable[TokenGrant | None]],
        left: int,
    ) -> None:
        await store.transaction(add_admin)
        other = opened()
        looked, go_on = asyncio.Event(), asyncio.Event()
        inner = sessions.begin

        async def begin_late(session: AsyncSession, **arguments: Any) -> TokenGrant:
            looked.set()
            await go_on.wait()
            return await inner(session, **arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sessions, "begin", begin_late)
            logging_in = asyncio.create_task(store.transaction(enter))
            await looked.wait()
            ending = asyncio.create_task(other.transaction(disable))
            # Without the lock the account is disabled before the session begins, however slowly.
            await asyncio.wait([ending], timeout=30 if left else 0.3)
            go_on.set()
            await asyncio.gather(logging_in, ending)

        assert len(await live_ids(store)) == left
