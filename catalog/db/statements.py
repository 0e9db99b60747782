"""Running statements that change rows, where the number of rows is the answer."""

from sqlalchemy import CursorResult, Delete, Update
from sqlalchemy.ext.asyncio import AsyncSession


async def affected_rows(session: AsyncSession, statement: Update | Delete) -> int:
    """Run a statement, and tell how many rows it has found; one that it changes to itself counts.

    Entities that the session holds are left as they are: nobody looks at them afterwards.
    """
    result = await session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)  # noqa: S101 (what such a statement returns; tells mypy)
    return result.rowcount
