"""Reader of accounts for their owners: those that are requested together take one round trip."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select

from catalog.auth.accounts import PUBLIC_COLUMNS
from catalog.auth.models import User
from catalog.db.batch_reader import batch_reader
from catalog.db.columns import Id
from catalog.db.database import Database
from catalog.db.deadlines import deadline_start
from catalog.db.read_connection import ReadConnection
from catalog.errors import AccountUnavailable

_ACCOUNTS = select(*PUBLIC_COLUMNS).where(
    User.id.in_(bindparam("user_ids", type_=Id, expanding=True)), User.disabled.is_(False)
)

Account = dict[str, Any]


class AccountReader:
    """Reader of accounts; one per process.

    A request joins only a read that begins after it, so it sees every change that was acknowledged
    before.
    """

    def __init__(self, database: Database) -> None:
        self._loader = batch_reader(database, _read, _required)

    async def read(self, user_id: int) -> Account:
        """Return the columns of an account that its owner may see.

        Raises:
            AccountUnavailable: it is disabled or deleted.
            DatabaseUnavailable, DatabaseBusy: as ``Database.connection``.
        """
        return await self._loader.load(user_id, user_id, since=deadline_start())


async def _read(connection: ReadConnection, ids: Sequence[int]) -> list[Account | None]:
    rows = await connection.execute(_ACCOUNTS, {"user_ids": ids})
    accounts = {row["id"]: dict(row) for row in rows.mappings()}
    return [accounts.get(user_id) for user_id in ids]


def _required(_: int, account: Account | None) -> Account:
    if account is None:
        raise AccountUnavailable
    return account
