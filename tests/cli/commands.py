"""Helpers for tests of the command line."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from click.testing import CliRunner, Result
from sqlalchemy import URL, text

from catalog.cli import main
from catalog.db.engines import Purpose, create_engine
from tests.engines import SECRET, settings_for


class CommandLine:
    """Runner of commands in this process, in a thread where they have their own event loop."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.environment: dict[str, str | None] = {
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "JWT_SECRET_KEY": SECRET.get_secret_value(),
        }

    async def run(self, *arguments: str, **environment: str | None) -> Result:
        """Run a command, and re-raise an unexpected exception; None unsets a variable."""
        return await self.run_on(b"", *arguments, **environment)

    async def run_on(
        self, standard_input: bytes, *arguments: str, **environment: str | None
    ) -> Result:
        """Run a command on a standard input; as ``run``."""
        result = await asyncio.to_thread(
            CliRunner().invoke,
            main,
            arguments,
            standard_input,
            prog_name="catalog",
            env={**self.environment, **environment},
        )
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        return result

    @asynccontextmanager
    async def started(
        self, *arguments: str, standard_input: int = DEVNULL, standard_error: int = PIPE
    ) -> AsyncIterator[Process]:
        """Start a command as a process; kill it at the end if it still runs."""
        # A shell without job control starts programs in the background with SIGINT ignored.
        started = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", f"{started}from catalog.cli import main; main()", *arguments),
            env={**os.environ, **{name: value or "" for name, value in self.environment.items()}},
            stdin=standard_input,
            stdout=PIPE,
            stderr=standard_error,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def output_of(self, *arguments: str, **environment: str | None) -> str:
        """Return the output of a command that must succeed and print no warning."""
        result = await self.run(*arguments, **environment)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    async def faults_of(self, *arguments: str, **environment: str | None) -> list[str]:
        """Return the error lines of a command that must fail."""
        result = await self.run(*arguments, **environment)
        assert result.exit_code == 1, result.output
        return result.stderr.splitlines()

    async def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Query the database directly."""
        return await self._execute(sql, Purpose.READING)

    async def change(self, *statements: str) -> None:
        """Change the database directly."""
        for sql in statements:
            await self._execute(sql, Purpose.WRITING)

    async def _execute(self, sql: str, purpose: Purpose) -> list[tuple[Any, ...]]:
        engine = create_engine(settings_for(self.url), purpose)
        try:
            async with engine.begin() as connection:
                result = await connection.execute(text(sql.replace(":", r"\:")))
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            await engine.dispose()
