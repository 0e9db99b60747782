"""Statements whose result is a number: affected rows and generated ids."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from pymysql.converters import escape_string
from sqlalchemy import CursorResult, Delete, Update, text
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.columns import Base, Timestamp

_STATEMENT_BYTES = 4_000_000
"""Parameters in one statement before escaping, which at worst doubles their size: half of the
smallest default ``max_allowed_packet`` of the supported servers."""
_NUMBER_BYTES = 24

_UPDATE_BYTES = 500_000
"""Parameters in one UPDATE. It is bounded because the event loop prepares it in one piece."""

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
    for piece in _pieces(rows):
        await _insert(session, model, columns, piece)


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
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    # One statement's ids are evenly spaced, by more than one in some clusters. Its number of rows
    # is known, so InnoDB reserves all ids at once, in every innodb_autoinc_lock_mode.
    step = 1 if on_sqlite or len(rows) == 1 else await _step(session)
    ids: list[int] = []
    for piece in _pieces(rows):
        first_id = await _insert(session, model, columns, piece)
        if on_sqlite:
            # SQLite has one writer at a time, so the ids are consecutive.
            first_id = int(await session.scalar(_LAST_ID)) - len(piece) + 1
        ids += range(first_id, first_id + len(piece) * step, step)
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


async def _insert(
    session: AsyncSession, model: type[Base], columns: tuple[str, ...], rows: list[tuple[Any, ...]]
) -> int:
    connection = await session.connection()
    statement = f"INSERT INTO {model.__tablename__} ({', '.join(columns)}) VALUES "  # noqa: S608 (names from the schema)
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" * len(columns))
        result = await connection.exec_driver_sql(f"{statement}({places})", rows)
    else:
        # Equal to what the driver would format in three times the time: it looks up the type of
        # each value.
        values = ", ".join([f"({', '.join(map(literal, row))})" for row in rows])
        result = await connection.exec_driver_sql(
            statement + values, execution_options={"no_parameters": True}
        )
    return result.lastrowid or 0


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


def literal(value: object) -> str:
    """Format a value as an SQL literal for the servers.

    Text is escaped by the driver, correctly for every sql_mode but NO_BACKSLASH_ESCAPES, which the
    connections turn off (``engines/mysql.py``).
    """
    if type(value) is str:
        return f"'{escape_string(value)}'"
    if type(value) is int:
        return str(value)
    if type(value) is float:
        # With an exponent it is a double; without one the servers parse it as a decimal.
        text = repr(value)
        return text if "e" in text else f"{text}e0"
    if value is None:
        return "NULL"
    raise TypeError(type(value))


def _pieces(rows: Sequence[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
    """Split rows into pieces that fit into one statement each, below the servers' size limit."""
    pieces: list[list[tuple[Any, ...]]] = []
    room = 0
    for row in rows:
        size = sum(map(_most_bytes, row))
        if size > room:
            pieces.append([])
            room = _STATEMENT_BYTES
        pieces[-1].append(row)
        room -= size
    return pieces


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
