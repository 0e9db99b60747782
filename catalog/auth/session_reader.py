"""Reader of the sessions of refresh tokens: refreshes at the same time share a round trip."""

from catalog.auth.tokens import session_state
from catalog.auth.tokens.jwt import Bearer
from catalog.auth.tokens.session_state import Resumed, SessionState, TokenKey
from catalog.db.batch_reader import BatchReader, batch_reader
from catalog.db.database import Database


class SessionReader:
    """Reader of sessions; one per process.

    A request joins only a read that begins after it, so it sees every log-out and every rotation
    that was acknowledged before.
    """

    def __init__(self, database: Database) -> None:
        self._loader: BatchReader[TokenKey, SessionState | None, SessionState | None] = (
            batch_reader(database, session_state.read_states, lambda _, state: state)
        )

    async def resume(self, bearer: Bearer) -> Resumed:
        """Resume the session of a refresh token.

        Raises:
            SessionEnded, AccountUnavailable, TokenReused: as ``session_state.resume``.
            DatabaseUnavailable, DatabaseBusy: as ``Database.connection``.
        """
        key = TokenKey.of(bearer)
        return session_state.resume(bearer, await self._loader.load(key, key))
