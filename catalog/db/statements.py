"""Running statements whose outcome is a number: rows that were changed, ids that were given."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from pymysql.converters import escape_string
from sqlalchemy import CursorResult, Delete, Update, text
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.columns import Base, Timestamp

_STATEMENT_BYTES = 4_000_000
"""Of parameters in one statement, before they are escaped, which at worst doubles them: half of
the least ``max_allowed_packet`` that supported servers come with."""
_NUMBER_BYTES = 24

_STEP = text("SELECT @@auto_increment_increment")
_STEP_KEY = "auto_increment_increment"
# How often it was found to have changed, by engine.
_step_changes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_LAST_ID = text("SELECT last_insert_rowid()")


async def affected_rows(session: AsyncSession, statement: Update | Delete) -> int:
    """Run a statement, and tell how many rows it has found; one that it changes to itself counts.

    Entities that the session holds are left as they are: nobody looks at them afterwards.
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
    """Insert rows as few large statements.

    Past SQLAlchemy's own handling of parameters, which takes as long as the server does; so
    instants must be given as ``stored_instant`` makes them.
    """
    for piece in _pieces(rows):
        await _insert(session, model, columns, piece)


async def insert_numbered_rows(
    session: AsyncSession,
    model: type[Base],
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> list[int]:
    """The same for a model whose table numbers its rows itself.

    Returns:
        the rows' ids, in their order and ascending. On Galera they are others when a node has
        joined or left the cluster meanwhile: who goes on with them must notice, call
        ``reset_id_step``, and raise ``RetryTransaction``.
    """
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    # One statement's ids are evenly apart, by more than one in some clusters. It knows its number
    # of rows, and so InnoDB sets them aside all at once, in every innodb_autoinc_lock_mode.
    step = 1 if on_sqlite or len(rows) == 1 else await _step(session)
    ids: list[int] = []
    for piece in _pieces(rows):
        first_id = await _insert(session, model, columns, piece)
        if on_sqlite:
            # Nobody else writes meanwhile, so here they are in a row.
            first_id = int(await session.scalar(_LAST_ID)) - len(piece) + 1
        ids += range(first_id, first_id + len(piece) * step, step)
    return ids


async def _step(session: AsyncSession) -> int:
    """How far apart ids are; asked once on each connection, whose own setting it is."""
    changes = _step_changes.get(session.get_bind(), 0)
    info = (await session.connection()).info
    known_at, step = info.get(_STEP_KEY, (None, 0))
    if known_at != changes:
        step = int(await session.scalar(_STEP))
        info[_STEP_KEY] = changes, step
    return int(step)


def reset_id_step(session: AsyncSession) -> None:
    """Ask anew how far apart ids are, on all connections: a cluster has changed under them."""
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
        # As the driver would write it, which takes three times as long: it asks of each value
        # anew what it is.
        values = ", ".join([f"({', '.join(map(literal, row))})" for row in rows])
        result = await connection.exec_driver_sql(
            statement + values, execution_options={"no_parameters": True}
        )
    return result.lastrowid or 0


def literal(value: object) -> str:
    """A value in the servers' SQL.

    Text is escaped by the driver, rightly for every sql_mode but NO_BACKSLASH_ESCAPES, which our
    connections turn off (``engines.py``).
    """
    if type(value) is str:
        return f"'{escape_string(value)}'"
    if type(value) is int:
        return str(value)
    if type(value) is float:
        # With an exponent it is a double; without, the servers take it for a decimal.
        text = repr(value)
        return text if "e" in text else f"{text}e0"
    if value is None:
        return "NULL"
    raise TypeError(type(value))


def _pieces(rows: Sequence[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
    """The rows, divided so that each piece makes one statement of a size that servers take."""
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
    """An instant as the engine keeps it, which saves the driver from formatting it.

    The driver takes seven times as long for a datetime.
    """
    dialect = session.get_bind().dialect
    as_stored = _timestamp.dialect_impl(dialect).bind_processor(dialect)
    assert as_stored is not None  # noqa: S101 (what every Timestamp has; tells mypy)
    return str(as_stored(instant))


_timestamp = Timestamp()
