"""Shared base of all commands: settings, event loop and error reporting.

Results go to standard output, messages to standard error. A failure prints a line ``title:
detail`` for each fault and exits with 1; wrong usage exits with 2.
"""

import asyncio
import sys
from collections.abc import Coroutine, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

import click
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from catalog.cli.closed_streams import replace_closed_streams
from catalog.db.error_translation import to_catalog_error
from catalog.errors import CatalogError, OperatorError
from catalog.observability.logs import configure_logging
from catalog.settings import Settings, load_settings

T = TypeVar("T")

# Failures that are no bugs of the command; OSError, because the network raises it.
EXPECTED = (CatalogError, DBAPIError, PoolTimeout, OSError)


class Commands(click.Group):
    """Command group that reports a failure as a line for each fault, never as a traceback.

    A command is imported when it is called: the supervisor, which runs as long as the service,
    needs half the memory and time of the other commands' imports.

    Args:
        homes: the module of each command, named as its function, in the order of --help.
    """

    def __init__(self, *args: Any, homes: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._homes = homes

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the commands' names."""
        return list(self._homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (the same)
        """Import a command."""
        home = self._homes.get(cmd_name)
        if home is None:
            return None
        command = getattr(import_module(home), home.rpartition(".")[2])
        assert isinstance(command, click.Command)  # noqa: S101 (tells mypy)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the requested command."""
        replace_closed_streams()
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader has closed the pipe; click exits properly then.
            raise
        except EXPECTED as error:
            for line in lines_of(error):
                click.echo(line, err=True)
            ctx.exit(1)


def lines_of(error: Exception) -> Iterator[str]:
    """Yield a failure as ``title: detail``, a line for each fault."""
    known = error if isinstance(error, CatalogError) else to_catalog_error(error)
    if known is None:
        title = "Database error" if isinstance(error, DBAPIError) else "System error"
        yield f"{title}: {_driver_text(error)}"
        return
    # The driver's text tells operators more than the message meant for anonymous clients.
    cause = error if known is not error else error.__cause__
    if isinstance(known, OperatorError) or not isinstance(cause, Exception):
        details = [fault.message for fault in known.errors] or known.detail.splitlines()
    else:
        details = [_driver_text(cause)]
    for detail in details:
        yield f"{known.title}: {detail}"


def _driver_text(error: Exception) -> str:
    # The driver's own error: SQLAlchemy's text would repeat the statement and its values.
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause.args[-1] if cause.args else cause).split()) or type(cause).__name__


def settings_for_command(**overrides: object) -> Settings:
    """Read the settings and send the logs to standard error.

    Raises:
        SettingsInvalid: as ``load_settings``.
    """
    settings = load_settings(**overrides)
    configure_logging(settings, stream=sys.stderr)
    return settings


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine in a new event loop."""
    return asyncio.run(work)


def encodable(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse an empty value, and text that the shell passed in an encoding other than UTF-8."""
    if value == "":
        raise click.BadParameter("must not be empty", param=parameter)
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("is not UTF-8", param=parameter) from None
    return value
