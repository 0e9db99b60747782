"""Full-text indexes: on the servers an index of an ordinary table, on SQLite a table of its own.

What goes in are tokens that no engine takes apart (see ``catalog.products.search.tokenizer``), so
none of them has a say in what is found.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Dialect, String, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.compiler import DDLCompiler, SQLCompiler, TypeCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

FTS5 = "fts5"
"""In a table's ``info``: on SQLite it is one of the module of that name, whose rows are numbered by
``rowid`` and whose columns are those that the table's ``info`` lists."""


class Tokens(Text):
    """Tokens of ASCII letters, digits and ``_``, with spaces between them; 16 MB on the servers."""


@compiles(Tokens, "mysql")
def _tokens(_type: Tokens, _compiler: TypeCompiler, **_: object) -> str:
    return "MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin"


@compiles(CreateTable, "sqlite")
def _create_table(element: CreateTable, compiler: DDLCompiler, **kw: Any) -> str:
    columns = element.element.info.get(FTS5)
    if columns is None:
        return str(compiler.visit_create_table(element, **kw))  # type: ignore[no-untyped-call]
    # Neither where in a row a token stands nor how long a row is, since nothing is ranked; and the
    # text itself, which a token is looked for in where the index would find too many rows.
    options = "tokenize = \"ascii tokenchars '_'\", detail = none, columnsize = 0"
    missing = "IF NOT EXISTS " if element.if_not_exists else ""
    name = compiler.preparer.format_table(element.element)
    return f"\nCREATE VIRTUAL TABLE {missing}{name} USING fts5({', '.join(columns)}, {options})"


class _Query(TypeDecorator[Sequence[Sequence[str]]]):
    """Beginnings of tokens in the engine's language: one of each group is required."""

    impl = String
    cache_ok = True

    def process_bind_param(
        self, value: Sequence[Sequence[str]] | None, dialect: Dialect
    ) -> str | None:
        """Write the query; what is in it are letters, digits and ``_``."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            groups = (" OR ".join(f'"{each}" *' for each in group) for group in value)
            return " AND ".join(f"({group})" for group in groups)
        return " ".join(f"+({' '.join(f'{each}*' for each in group)})" for group in value)


class matches(FunctionElement[bool]):  # noqa: N801 (reads as the SQL function that it is)
    """Whether an indexed column has, for each group of beginnings, a token that begins as one.

    Args:
        column: of ``Tokens``, with a full-text index of its own.
        name: of the parameter, the groups.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[str], name: str) -> None:
        super().__init__(column, bindparam(name, type_=_Query()))


@compiles(matches, "sqlite")
def _matches_sqlite(element: matches, compiler: SQLCompiler, **kw: Any) -> str:
    column, query = element.clauses
    # Of the whole table: it keeps no record of columns.
    table = compiler.preparer.format_table(column.table)
    return f"{table} MATCH {compiler.process(query, **kw)}"


@compiles(matches, "mysql")
def _matches_mysql(element: matches, compiler: SQLCompiler, **kw: Any) -> str:
    column, query = (compiler.process(each, **kw) for each in element.clauses)
    return f"MATCH ({column}) AGAINST ({query} IN BOOLEAN MODE)"
