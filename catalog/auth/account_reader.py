"""Reader of accounts for their owners: those that are requested together take one round trip."""

from catalog.auth import accounts
from catalog.auth.accounts import AccountRow
from catalog.db.batch_reader import BatchReader, batch_reader
from catalog.db.database import Database
from catalog.db.deadlines import deadline_start


class AccountReader:
    """Reader of accounts; one per process.

    A request joins only a read that begins after it, so it sees every change that was acknowledged
    before.
    """

    def __init__(self, database: Database) -> None:
        self._loader: BatchReader[int, AccountRow | None, AccountRow] = batch_reader(
            database, accounts.read_usable, lambda _, account: accounts.require_usable(account)
        )

    async def read(self, user_id: int) -> AccountRow:
        """Return the columns of an account that its owner may see.

        Raises:
            AccountUnavailable: it is disabled or deleted.
            DatabaseUnavailable, DatabaseBusy: as ``Database.connection``.
        """
        return await self._loader.load(user_id, user_id, since=deadline_start())
