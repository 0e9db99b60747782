"""Statements whose result is a number: affected rows and generated ids."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import CursorResult, Delete, Update, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.db.columns import Base, Timestamp
from catalog.db.literals import literal, row_literals

_INSERT_BYTES = 2_000_000
"""Size of one INSERT before its last rows: an eighth of the smallest default ``max_allowed_packet``
of the supported servers. The event loop prepares it in one piece."""

_UPDATE_BYTES = 500_000
"""Parameters in one UPDATE, before escaping. The event loop prepares it in one piece, too."""
_NUMBER_BYTES = 24

_STEP = text("SELECT @@auto_increment_increment")
_STEP_KEY = "auto_increment_increment"
# Number of resets by ``reset_id_step``, by engine; a connection's cached step is valid for one.
_step_changes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_LAST_ID = text("SELECT last_insert_rowid()")


async def affected_rows(session: AsyncSession, statement: Update | Delete) -> int:
    """Run a statement and return the number of matched rows, including rows left unchanged.

    Entities in the session are not synchronized: they are not used afterwards.
    """
    result = await session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)  # noqa: S101 (what such a statement returns; tells mypy)
    return result.rowcount


async def insert_rows(
    session: AsyncSession,
    model: type[Base],
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Insert rows in few large statements.

    Bypasses SQLAlchemy's parameter processing, which takes as long as the server does; so instants
    must be given as ``stored_instant`` returns them.
    """
    if not rows:
        return
    connection = await session.connection()
    statement = _insert_into(model, columns)
    if connection.dialect.name == "sqlite":
        await connection.exec_driver_sql(f"{statement} {_places(columns)}", rows)
        return
    for piece in row_literals(rows, max_bytes=_INSERT_BYTES):
        await _insert(connection, f"{statement} {piece.sql}")


async def insert_numbered_rows(
    session: AsyncSession,
    model: type[Base],
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> list[int]:
    """Insert rows in few large statements into a table that generates ids.

    Returns:
        the rows' ids, in the rows' order and ascending. On Galera they are wrong when a node has
        joined or left the cluster meanwhile: a caller that uses them must detect that, call
        ``reset_id_step``, and raise ``RetryTransaction``.
    """
    if not rows:
        return []
    connection = await session.connection()
    statement = _insert_into(model, columns)
    if connection.dialect.name == "sqlite":
        await connection.exec_driver_sql(f"{statement} {_places(columns)}", rows)
        # SQLite has one writer at a time, so the ids are consecutive.
        last_id = int(await session.scalar(_LAST_ID))
        return list(range(last_id - len(rows) + 1, last_id + 1))
    # One statement's ids are evenly spaced, by more than one in some clusters. Its number of rows
    # is known, so InnoDB reserves all ids at once, in every innodb_autoinc_lock_mode.
    step = 1 if len(rows) == 1 else await _step(session)
    ids: list[int] = []
    for piece in row_literals(rows, max_bytes=_INSERT_BYTES):
        first_id = await _insert(connection, f"{statement} {piece.sql}")
        ids += range(first_id, first_id + piece.rows * step, step)
    return ids


async def _step(session: AsyncSession) -> int:
    """Return the distance between ids; a session variable, so queried once per connection."""
    changes = _step_changes.get(session.get_bind(), 0)
    info = (await session.connection()).info
    known_at, step = info.get(_STEP_KEY, (None, 0))
    if known_at != changes:
        step = int(await session.scalar(_STEP))
        info[_STEP_KEY] = changes, step
    return int(step)


def reset_id_step(session: AsyncSession) -> None:
    """Make all connections query the distance between ids again, after a change of the cluster."""
    bind = session.get_bind()
    _step_changes[bind] = _step_changes.get(bind, 0) + 1


def _insert_into(model: type[Base], columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {model.__tablename__} ({', '.join(columns)}) VALUES"


def _places(columns: tuple[str, ...]) -> str:
    return f"({', '.join('?' * len(columns))})"


async def _insert(connection: AsyncConnection, statement: str) -> int:
    options = {"no_parameters": True}
    return (await connection.exec_driver_sql(statement, execution_options=options)).lastrowid


async def update_rows(
    session: AsyncSession,
    model: type[Base],
    columns: tuple[str, ...],
    rows: Iterable[tuple[Any, ...]],
) -> int:
    """Set columns of many rows to values of their own, in few statements.

    Args:
        session: the transaction.
        model: the table.
        columns: the column of the key, then those to set.
        rows: values of these columns, taken as the statements need them; instants as
            ``stored_instant`` returns them.

    Returns:
        the number of rows found.
    """
    found = size = 0
    piece: list[tuple[Any, ...]] = []
    for row in rows:
        piece.append(row)
        size += sum(map(_most_bytes, row))
        if size >= _UPDATE_BYTES:
            found += await _update(session, model, columns, piece)
            piece, size = [], 0
    return found + (await _update(session, model, columns, piece) if piece else 0)


async def _update(
    session: AsyncSession, model: type[Base], columns: tuple[str, ...], rows: list[tuple[Any, ...]]
) -> int:
    connection = await session.connection()
    table, (key, *others) = model.__tablename__, columns
    if connection.dialect.name == "sqlite":
        places = ", ".join(f"{column} = ?" for column in others)
        statement = f"UPDATE {table} SET {places} WHERE {key} = ?"  # noqa: S608 (names from the schema)
        keys_last = [(*row[1:], row[0]) for row in rows]
        return (await connection.exec_driver_sql(statement, keys_last)).rowcount
    # Joined in this order and by the key, so that no other rows are read and locked.
    names = [
        f"{value} AS {column}" for column, value in zip(columns, map(literal, rows[0]), strict=True)
    ]
    values = [", ".join(names), *(", ".join(map(literal, row)) for row in rows[1:])]
    places = ", ".join(f"{table}.{column} = new.{column}" for column in others)
    statement = (
        f"UPDATE (SELECT {' UNION ALL SELECT '.join(values)}) AS new"  # noqa: S608 (as above)
        f" STRAIGHT_JOIN {table} FORCE INDEX (PRIMARY) ON {table}.{key} = new.{key} SET {places}"
    )
    result = await connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    return result.rowcount


def _most_bytes(value: object) -> int:
    if not isinstance(value, str):
        return _NUMBER_BYTES
    return len(value) + 4 if value.isascii() else 4 * len(value) + 4


def stored_instant(session: AsyncSession, instant: datetime) -> str:
    """Format an instant as the engine stores it.

    The driver takes seven times as long for a datetime.
    """
    dialect = session.get_bind().dialect
    as_stored = _timestamp.dialect_impl(dialect).bind_processor(dialect)
    assert as_stored is not None  # noqa: S101 (what every Timestamp has; tells mypy)
    return str(as_stored(instant))


_timestamp = Timestamp()
