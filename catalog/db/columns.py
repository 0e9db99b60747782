"""Declarative base of the models, and column types that behave alike on every engine."""

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
"""Largest id: a signed 64-bit integer on every engine."""


class Base(DeclarativeBase):
    """Base of the models; its naming convention makes constraint names equal on every engine."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


# SQLite generates ids only in a column of type INTEGER, which is 64-bit there.
Id = BigInteger().with_variant(Integer(), "sqlite")


class ExactString(String):
    """Text that compares and sorts by code point, trailing spaces included.

    The servers' default collations treat ``josé`` as ``jose`` and all emoji as equal. SQLite
    compares bytes, which for UTF-8 is the same order.
    """


class ExactText(Text):
    """``ExactString`` without a length: up to 65,535 bytes on MySQL and MariaDB."""


def _collation(compiler: TypeCompiler) -> str:
    # Both collations compare by code point without padding. Neither server knows the other's name,
    # and utf8mb4_bin, which both know, ignores trailing spaces.
    is_mariadb = getattr(compiler.dialect, "is_mariadb", False)
    return "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"


@compiles(ExactString, "mysql")
def _exact_string(type_: ExactString, compiler: TypeCompiler, **_: object) -> str:
    return f"VARCHAR({type_.length}) CHARACTER SET utf8mb4 COLLATE {_collation(compiler)}"


@compiles(ExactText, "mysql")
def _exact_text(_type: ExactText, compiler: TypeCompiler, **_: object) -> str:
    return f"TEXT CHARACTER SET utf8mb4 COLLATE {_collation(compiler)}"


class Timestamp(TypeDecorator[datetime]):
    """Instant in UTC with microseconds; accepts and returns aware datetimes.

    SQLite stores it as the text that the API returns, the servers as ``DATETIME(6)``.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the engine's column type that keeps microseconds."""
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
        """Convert an aware datetime to UTC; a naive one is a bug and raises ValueError."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime is not supported")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (the library's signature)
        """Return the stored value as an aware datetime in UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class rfc3339(FunctionElement[str]):  # noqa: N801 (reads as the SQL function that it is)
    """``Timestamp`` column formatted as RFC 3339 text by the database.

    Otherwise the driver would parse 200 datetimes for a page of 100 rows, only for them to be
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
    # Doubled percent signs: the driver substitutes parameters by %-formatting.
    return f"DATE_FORMAT({compiler.process(element.clauses, **kw)}, '%%Y-%%m-%%dT%%H:%%i:%%s.%%fZ')"


class byte_length(FunctionElement[int]):  # noqa: N801 (reads as the SQL function that it is)
    """Length of a text in bytes."""

    type = Integer()
    inherit_cache = True


@compiles(byte_length, "sqlite")
def _byte_length_sqlite(element: byte_length, compiler: SQLCompiler, **kw: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"


@compiles(byte_length, "mysql")
def _byte_length_mysql(element: byte_length, compiler: SQLCompiler, **kw: Any) -> str:
    return f"OCTET_LENGTH({compiler.process(element.clauses, **kw)})"


class database_now(FunctionElement[datetime]):  # noqa: N801 (reads as the SQL function that it is)
    """Current time by the database's clock, which all instances share."""

    type = Timestamp()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _database_now_sqlite(_element: database_now, _compiler: SQLCompiler, **_: Any) -> str:
    return "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"


@compiles(database_now, "mysql")
def _database_now_mysql(_element: database_now, _compiler: SQLCompiler, **_: Any) -> str:
    return "UTC_TIMESTAMP(6)"


def now() -> datetime:
    """Return the current time as an aware datetime in UTC, as ``Timestamp`` requires it."""
    return datetime.now(UTC)


def rfc3339_text(instant: datetime) -> str:
    """Format an instant in UTC as ``rfc3339`` does in the database: microseconds, ``Z``."""
    return instant.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
