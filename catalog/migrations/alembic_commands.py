"""Alembic's commands, which run the revisions in ``versions/``.

Apart from the rest of the package, because importing Alembic takes 5 MB, and a worker that finds
its schema up to date needs none of it.
"""

import io
from pathlib import Path
from typing import Any, Literal

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

__all__ = ["CommandError", "Direction", "run", "script"]

Direction = Literal["upgrade", "downgrade"]


def run(connection: Connection, direction: Direction, revision: str) -> None:
    """Upgrade or downgrade the schema to a revision.

    Raises:
        CommandError: there is no such revision, or another one than expected was found.
    """
    commands = {"upgrade": command.upgrade, "downgrade": command.downgrade}
    commands[direction](_config(connection=connection), revision)


def script(revision: str, *, dialect: str) -> str:
    """Return the SQL that upgrades an empty database to a revision.

    Raises:
        CommandError: there is no such revision.
    """
    output = io.StringIO()
    command.upgrade(_config(output=output, dialect=dialect), revision, sql=True)
    return output.getvalue()


def _config(**attributes: Any) -> Config:
    config = Config(output_buffer=attributes.pop("output", None))
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes.update(attributes)
    return config
