"""Behaviour common to all commands."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT

import pytest

from catalog import __version__
from tests.cli.commands import CommandLine
from tests.support import Caller

COMMANDS = (
    *("serve", "migrate", "create-admin", "reset-password", "end-sessions"),
    *("import", "export", "seed", "check", "conformance", "openapi", "secrets"),
)


class TestHelp:
    async def test_help_lists_every_command_with_a_sentence(self, nowhere: CommandLine) -> None:
        listed = (await nowhere.output_of("--help")).partition("Commands:\n")[2].splitlines()

        assert [line.split()[0] for line in listed] == list(COMMANDS)
        assert all(len(line.split()) > 3 for line in listed)

    @pytest.mark.parametrize("command", COMMANDS)
    async def test_help_needs_no_valid_settings(self, nowhere: CommandLine, command: str) -> None:
        help_text = await nowhere.output_of(command, "--help", DATABASE_URL="nonsense")

        assert help_text.startswith(f"Usage: catalog {command}")

    async def test_version_is_that_of_the_package(self, nowhere: CommandLine) -> None:
        assert await nowhere.output_of("--version") == f"catalog, version {__version__}\n"


class TestFailure:
    @pytest.mark.parametrize("command", ["create-admin", "migrate", "openapi", "seed", "serve"])
    async def test_every_invalid_setting_is_reported_on_a_line(
        self, nowhere: CommandLine, command: str
    ) -> None:
        faults = await nowhere.faults_of(command, CATALOG_WORKERS="0", CATALOG_BIND="here")

        assert len(faults) == 2
        assert faults[0].startswith("The settings are not valid: CATALOG_BIND must be")
        assert faults[1].startswith(
            "The settings are not valid: CATALOG_WORKERS must be at least 1"
        )

    @pytest.mark.parametrize("command", ["create-admin", "seed"])
    async def test_unreachable_database_is_reported_on_one_line(
        self, nowhere: CommandLine, command: str
    ) -> None:
        faults = await nowhere.faults_of(command)

        assert faults == [
            "The database is not available: Can't connect to MySQL server on '127.0.0.1'"
        ]

    async def test_database_error_is_reported_on_one_line(self, fresh: CommandLine) -> None:
        await fresh.output_of("migrate")
        await fresh.change("DROP TABLE product_words", "DROP TABLE products")

        faults = await fresh.faults_of("seed", "--users=1", "--products=1")

        assert len(faults) == 1
        assert faults[0].startswith("The database is not available: ")
        assert "products" in faults[0]
        assert "INSERT" not in faults[0]

    async def test_usage_error_exits_with_two(self, nowhere: CommandLine) -> None:
        assert (await nowhere.run("seed", "--products=-1")).exit_code == 2
        assert (await nowhere.run("sow")).exit_code == 2


class TestClosedStream:
    """Commands whose standard streams were closed before their start, as with ``>&-``."""

    async def outcome(self, catalog: CommandLine, command: str) -> tuple[int | None, str]:
        """Run a command line in a shell; return its status and output."""
        process = await asyncio.create_subprocess_shell(
            f"{sys.executable} -m catalog {command}",
            env={
                **os.environ,
                **{name: value or "" for name, value in catalog.environment.items()},
            },
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    @pytest.mark.parametrize(
        ("command", "stream"),
        [
            ("export --format csv >&-", "output"),
            ("openapi >&-", "output"),
            ("import - --format csv --owner ada --dry-run <&-", "input"),
        ],
    )
    async def test_data_cannot_be_read_or_written(
        self, catalog: CommandLine, ada: Caller, command: str, stream: str
    ) -> None:
        assert await self.outcome(catalog, command) == (
            1,
            f"System error: Standard {stream} is closed\n",
        )
        assert ada

    @pytest.mark.parametrize(
        ("command", "output"),
        [
            ("migrate >&-", ""),
            ("seed --users=1 --products=1 >&- 2>&- <&-", ""),
            ("migrate <&- 2>&-", "Nothing to do: the database is at 0008.\n"),
        ],
    )
    async def test_messages_are_discarded(
        self, catalog: CommandLine, command: str, output: str
    ) -> None:
        assert await self.outcome(catalog, command) == (0, output)

    async def test_password_is_generated_without_standard_input(self, catalog: CommandLine) -> None:
        code, output = await self.outcome(
            catalog, "create-admin --username=grace --email=grace@example.com <&-"
        )

        assert code == 0, output
        assert "Password, shown only now:" in output


class TestLogs:
    async def test_logs_go_to_standard_error(
        self, nowhere: CommandLine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.bootstrap.DATABASE_START_SECONDS", 0.3)

        result = await nowhere.run("migrate")

        assert result.exit_code == 1
        assert result.stdout == ""
        *logged, failure = result.stderr.splitlines()
        assert logged
        assert all('"event":"waiting_for_database"' in line for line in logged)
        assert failure.startswith("The service cannot start: The database cannot be used: ")
