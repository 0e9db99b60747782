"""Keyset pagination: the condition that a row lies beyond a position, in each dialect."""

from typing import Any, ClassVar

from sqlalchemy import ColumnElement, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class _Beyond(FunctionElement[bool]):
    """Keyset condition: whether a row lies beyond a position in an order of two columns.

    MySQL and MariaDB seek in the index only when the condition is written as ranges, SQLite only
    when it is a row value comparison.

    Args:
        key: the first column.
        row_id: the second column.
        place: the common prefix of the parameters' names.
    """

    # Untyped: the compiler would compare a Boolean with 1, and no engine seeks then.
    inherit_cache = True
    operator: ClassVar[str]

    def __init__(self, key: ColumnElement[Any], row_id: ColumnElement[int], place: str) -> None:
        super().__init__(
            key,
            row_id,
            bindparam(f"{place}_key", type_=key.type),
            bindparam(f"{place}_id", type_=row_id.type),
        )


class above(_Beyond):  # noqa: N801 (reads as the SQL condition that it is)
    """Condition that a row lies after a position in ascending order."""

    inherit_cache = True
    operator = ">"


class below(_Beyond):  # noqa: N801 (reads as the SQL condition that it is)
    """Condition that a row lies after a position in descending order."""

    inherit_cache = True
    operator = "<"


@compiles(_Beyond, "sqlite")
def _beyond_sqlite(element: _Beyond, compiler: SQLCompiler, **kw: Any) -> str:
    key, row_id, after_key, after_id = (compiler.process(each, **kw) for each in element.clauses)
    return f"({key}, {row_id}) {element.operator} ({after_key}, {after_id})"


@compiles(_Beyond, "mysql")
def _beyond_mysql(element: _Beyond, compiler: SQLCompiler, **kw: Any) -> str:
    key, row_id, after_key, after_id = (compiler.process(each, **kw) for each in element.clauses)
    beyond = element.operator
    same = f"{key} = {after_key} AND {row_id} {beyond} {after_id}"
    return f"({key} {beyond} {after_key} OR ({same}))"
