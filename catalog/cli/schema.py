"""Check of the database's schema against this release."""

from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.errors import OperatorError
from catalog.migrations import current_revision, head_revision, known_revisions


async def require_schema(connection: AsyncConnection) -> None:
    """Refuse a database whose schema is not this release's.

    Raises:
        OperatorError: the schema is older, newer or missing; says what to do.
    """
    if fault := schema_fault(await current_revision(connection)):
        raise OperatorError(f"{fault}.")


def schema_fault(revision: str | None) -> str | None:
    """Return what is wrong with a database at a revision, or None."""
    head = head_revision()
    if revision == head:
        return None
    if revision is None:
        return "The database has no tables yet; run: catalog migrate"
    if revision in known_revisions():
        return (
            f"The database is at {revision} but this release requires {head}; run: catalog migrate"
        )
    return f"The database is at {revision}, which is newer than this release (at {head})"
