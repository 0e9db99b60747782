"""Sessions of one account in a database without a service: begun, rotated and listed."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth import service
from catalog.auth.accounts import Account
from catalog.auth.models import Role
from catalog.auth.passwords.login_throttle import subject_of
from catalog.auth.tokens import sessions
from catalog.auth.tokens.jwt import Bearer, Kind
from catalog.auth.tokens.sessions import SessionLifetimes, SessionRequest, TokenGrant
from catalog.db.database import Database
from tests.db.support import run_on

LIFETIMES = SessionLifetimes(refresh=timedelta(days=30), session=timedelta(days=90))
OWNER = Account(1, "ada", "ada@example.com", "user", disabled=False, password_hash="")
SUBJECT = subject_of(OWNER.id, "192.0.2.1")


def session_request(limit: int = 100) -> SessionRequest:
    return SessionRequest(address="192.0.2.1", agent="test", lifetimes=LIFETIMES, limit=limit)


async def begin(database: Database, limit: int = 100) -> TokenGrant:
    return await database.transaction(
        sessions.begin, user_id=OWNER.id, role=Role.USER, session_request=session_request(limit)
    )


def bearer_of(grant: TokenGrant) -> Bearer:
    return Bearer(grant.user_id, grant.session_id, Kind.REFRESH, grant.token_id, None, {}, {})


async def live_ids(database: Database) -> set[int]:
    live = await run_on(database.connection(), sessions.list_live, user_id=OWNER.id)
    return {row["id"] for row in live}


async def rotate_stored(session: AsyncSession, bearer: Bearer) -> TokenGrant:
    """Rotate a session's refresh token as the service does."""
    return await sessions.rotate(session, bearer=bearer, lifetimes=LIFETIMES)


async def log_in(session: AsyncSession, limit: int = 100) -> TokenGrant | None:
    return await service.log_in(
        session, account=OWNER, subject=SUBJECT, session_request=session_request(limit)
    )
