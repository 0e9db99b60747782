"""Reading changes in tests."""

from typing import Any

import orjson
import pytest
from sqlalchemy import event

from catalog.db.database import Database
from catalog.db.engines.mysql_connection import MysqlConnection
from catalog.products.changes.log_reader import Changes
from tests.support import Caller


def content_of(changes: Changes) -> list[Any]:
    """Return the JSON members of changes."""
    return [orjson.loads(entry.json) for entry in changes.entries]


def noted_reads(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which statements of pooled reads are added, also those past the driver."""
    statements: list[str] = []
    event.listen(
        database.engines[0].sync_engine,
        "before_cursor_execute",
        lambda *details: statements.append(details[2]),
    )
    send_query = MysqlConnection.send_query

    def noted(connection: MysqlConnection, statement: bytes) -> Any:
        statements.append(statement.decode())
        return send_query(connection, statement)

    monkeypatch.setattr(MysqlConnection, "send_query", noted)
    return statements


async def followed(caller: Caller, since: int | str = 0, limit: int = 1000) -> list[dict[str, Any]]:
    """Return all changes after a position, reading page by page."""
    found: list[dict[str, Any]] = []
    while True:
        page = (await caller.get(f"/api/products/changes?since={since}&limit={limit}")).json
        found += page["changes"]
        since = page["change"]
        if not page["more"]:
            return found
