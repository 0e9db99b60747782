"""What tables are made of: the models' base and columns that mean the same on every engine."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData, String, Text
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.compiler import SQLCompiler, TypeCompiler
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

MAX_ID = 2**63 - 1
"""The largest id: 64-bit and signed on every engine."""


class Base(DeclarativeBase):
    """The models' common base; constraint names are the same wherever they are made."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


# SQLite numbers rows by itself only in a column that is called INTEGER; that is 64-bit there.
Id = BigInteger().with_variant(Integer(), "sqlite")


class ExactString(String):
    """Text that is equal only to itself and sorts by code point, trailing spaces included.

    The servers' defaults hold ``josé`` for ``jose`` and one emoji for any other. SQLite compares
    bytes already, which for UTF-8 is the same order.
    """


class ExactText(Text):
    """The same for text without a length; 65,535 bytes on MySQL and MariaDB."""


def _collation(compiler: TypeCompiler) -> str:
    # Both mean: by code point, NO PAD. Neither server knows the other's name for it, and
    # utf8mb4_bin, which both know, ignores trailing spaces.
    is_mariadb = getattr(compiler.dialect, "is_mariadb", False)
    return "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"


@compiles(ExactString, "mysql")
def _exact_string(type_: ExactString, compiler: TypeCompiler, **_: object) -> str:
    return f"VARCHAR({type_.length}) CHARACTER SET utf8mb4 COLLATE {_collation(compiler)}"


@compiles(ExactText, "mysql")
def _exact_text(_type: ExactText, compiler: TypeCompiler, **_: object) -> str:
    return f"TEXT CHARACTER SET utf8mb4 COLLATE {_collation(compiler)}"


class Timestamp(TypeDecorator[datetime]):
    """An instant in UTC with microseconds; takes and gives aware datetimes.

    SQLite keeps it as the text that the API shows, the servers as ``DATETIME(6)``.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Give each engine the column type that keeps microseconds."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(
                sqlite.DATETIME(  # type: ignore[no-untyped-call]  # its keywords are untyped
                    storage_format="%(year)04d-%(month)02d-%(day)02dT"
                    "%(hour)02d:%(minute)02d:%(second)02d.%(microsecond)06dZ",
                    regexp=r"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)\.(\d+)Z",
                )
            )
        return dialect.type_descriptor(mysql.DATETIME(fsp=6))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (the library's signature)
        """Turn an aware datetime into UTC; a naive one is a bug and raises ValueError."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the database")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (the library's signature)
        """Give back what was stored as an aware datetime in UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class rfc3339(FunctionElement[str]):  # noqa: N801 (reads as the SQL function that it is)
    """A ``Timestamp`` column as RFC 3339 text, made by the database.

    On a page of 100 rows the driver would otherwise parse 200 datetimes only for them to be
    formatted again.
    """

    type = String()
    inherit_cache = True

    def __init__(self, column: ColumnElement[datetime]) -> None:
        super().__init__(column)


@compiles(rfc3339, "sqlite")
def _rfc3339_sqlite(element: rfc3339, compiler: SQLCompiler, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(rfc3339, "mysql")
def _rfc3339_mysql(element: rfc3339, compiler: SQLCompiler, **kw: Any) -> str:
    # The percent signs are doubled because the driver substitutes parameters by %-formatting.
    return f"DATE_FORMAT({compiler.process(element.clauses, **kw)}, '%%Y-%%m-%%dT%%H:%%i:%%s.%%fZ')"


class database_now(FunctionElement[datetime]):  # noqa: N801 (reads as the SQL function that it is)
    """The present instant by the database's clock, the one that all instances share."""

    type = Timestamp()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _database_now_sqlite(_element: database_now, _compiler: SQLCompiler, **_: Any) -> str:
    return "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"


@compiles(database_now, "mysql")
def _database_now_mysql(_element: database_now, _compiler: SQLCompiler, **_: Any) -> str:
    return "UTC_TIMESTAMP(6)"


def now() -> datetime:
    """The present instant, aware and in UTC, as every ``Timestamp`` wants it."""
    return datetime.now(UTC)


def rfc3339_text(instant: datetime) -> str:
    """An instant in UTC as ``rfc3339`` renders it in the database: microseconds, ``Z``."""
    return instant.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
