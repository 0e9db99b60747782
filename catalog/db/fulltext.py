"""Full-text indexes: an index of an ordinary table on the servers, an FTS5 table on SQLite.

They hold tokens that no engine splits further (see ``catalog.products.search.tokenizer``), so that
all engines find the same rows.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Dialect, Join, String, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.compiler import DDLCompiler, SQLCompiler, TypeCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

FTS5 = "fts5"
"""Key in a table's ``info`` that makes it an FTS5 virtual table on SQLite; the value lists its
columns. Its rows are identified by ``rowid``."""


class Tokens(Text):
    """Space-separated tokens of ASCII letters, digits and ``_``; up to 16 MB on the servers."""


@compiles(Tokens, "mysql")
def _tokens(_type: Tokens, _compiler: TypeCompiler, **_: object) -> str:
    return "MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin"


@compiles(CreateTable, "sqlite")
def _create_table(element: CreateTable, compiler: DDLCompiler, **kw: Any) -> str:
    columns = element.element.info.get(FTS5)
    if columns is None:
        return str(compiler.visit_create_table(element, **kw))  # type: ignore[no-untyped-call]
    # No token positions and no row sizes, since results are not ranked. The text itself is stored,
    # because queries search it where the index would match too many rows.
    options = "tokenize = \"ascii tokenchars '_'\", detail = none, columnsize = 0"
    missing = "IF NOT EXISTS " if element.if_not_exists else ""
    name = compiler.preparer.format_table(element.element)
    return f"\nCREATE VIRTUAL TABLE {missing}{name} USING fts5({', '.join(columns)}, {options})"


class _Query(TypeDecorator[Sequence[Sequence[str]]]):
    """Query in the engine's syntax that requires one token prefix of each group."""

    impl = String
    cache_ok = True

    def process_bind_param(
        self, value: Sequence[Sequence[str]] | None, dialect: Dialect
    ) -> str | None:
        """Build the query; prefixes hold only letters, digits and ``_``, so none is escaped."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            groups = (" OR ".join(f'"{each}" *' for each in group) for group in value)
            return " AND ".join(f"({group})" for group in groups)
        return " ".join(f"+({' '.join(f'{each}*' for each in group)})" for group in value)


class matches(FunctionElement[bool]):  # noqa: N801 (reads as the SQL function that it is)
    """Condition that an indexed column has, for each group, a token with one of its prefixes.

    Args:
        column: a ``Tokens`` column with a full-text index of its own.
        name: name of the bind parameter, whose value is the groups of prefixes.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[str], name: str) -> None:
        super().__init__(column, bindparam(name, type_=_Query()))


@compiles(matches, "sqlite")
def _matches_sqlite(element: matches, compiler: SQLCompiler, **kw: Any) -> str:
    column, query = element.clauses
    # Matches the whole table: with ``detail = none`` it keeps no record of columns.
    table = compiler.preparer.format_table(column.table)
    return f"{table} MATCH {compiler.process(query, **kw)}"


@compiles(matches, "mysql")
def _matches_mysql(element: matches, compiler: SQLCompiler, **kw: Any) -> str:
    column, query = (compiler.process(each, **kw) for each in element.clauses)
    return f"MATCH ({column}) AGAINST ({query} IN BOOLEAN MODE)"


class OrderedJoin(Join):
    """Inner join that SQLite runs from left to right; on the servers STRAIGHT_JOIN does so.

    SQLite may otherwise search the full-text index once for each row of the other table.
    """

    __visit_name__ = "join"
    inherit_cache = True


@compiles(OrderedJoin, "sqlite")
def _ordered_join(element: OrderedJoin, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite never reorders the tables of a CROSS JOIN (https://sqlite.org/optoverview.html).
    joined = compiler.visit_join(element, **kw)  # type: ignore[no-untyped-call]
    return str(joined).replace(" JOIN ", " CROSS JOIN ", 1)
