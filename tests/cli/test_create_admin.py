"""``catalog create-admin``."""

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from catalog.auth.models import Role
from tests.cli.commands import CommandLine
from tests.engines import SECRET
from tests.support import PASSWORD, Caller

GRACE = ("--username=grace", "--email=grace@example.com")


async def role_of(anyone: Caller, username: str, password: str) -> object:
    """Log in, and return the role in the response."""
    answer = await anyone.log_in(username, password)
    assert answer.status_code == 200, answer.body
    return answer.json["user"]["role"]


class TestNewAdministrator:
    async def test_given_password_logs_in(self, catalog: CommandLine, anyone: Caller) -> None:
        output = await catalog.output_of("create-admin", *GRACE, f"--password={PASSWORD}")

        assert output == "Created the administrator 'grace'.\n"
        assert await role_of(anyone, "grace", PASSWORD) == Role.ADMIN

    async def test_password_is_generated_and_shown_if_none_is_given(
        self, catalog: CommandLine, anyone: Caller
    ) -> None:
        first = await catalog.output_of("create-admin", *GRACE)
        second = await catalog.output_of("create-admin", "--username=ada", "--email=ada@e.org")

        made, shown = first.splitlines()
        assert made == "Created the administrator 'grace'."
        label, _, password = shown.rpartition(" ")
        assert label == "Password, shown only now:"
        assert len(password) >= 20
        assert password not in second
        assert await role_of(anyone, "grace", password) == Role.ADMIN

    async def test_second_administrator_can_be_created(
        self, catalog: CommandLine, admin: Caller
    ) -> None:
        await catalog.output_of("create-admin", "--username=ada", "--email=ada@example.com")

        rows = await catalog.query("SELECT username FROM users WHERE role = 'admin' ORDER BY id")
        assert admin.user_id == 1
        assert rows == [("grace",), ("ada",)]


class TestDefaults:
    async def test_defaults_come_from_the_settings(
        self, catalog: CommandLine, anyone: Caller
    ) -> None:
        output = await catalog.output_of(
            "create-admin",
            ADMIN_USERNAME="boss",
            ADMIN_EMAIL="boss@example.com",
            ADMIN_PASSWORD=PASSWORD,
        )

        assert output == "Created the administrator 'boss'.\n"
        assert await role_of(anyone, "boss@example.com", PASSWORD) == Role.ADMIN

    async def test_password_of_the_settings_is_not_used_for_another_name(
        self, catalog: CommandLine, anyone: Caller
    ) -> None:
        output = await catalog.output_of("create-admin", *GRACE, ADMIN_PASSWORD=PASSWORD)

        assert "Password, shown only now: " in output
        assert (await anyone.log_in("grace", PASSWORD)).status_code == 401


class TestRefusal:
    async def test_fault_of_a_duplicate_account_names_the_duplicate_field(
        self, catalog: CommandLine
    ) -> None:
        taken = "The value is already taken: "
        await catalog.output_of("create-admin", *GRACE)

        both = await catalog.faults_of("create-admin", "--username=GRACE", GRACE[1])
        name = await catalog.faults_of("create-admin", GRACE[0], "--email=new@example.com")
        address = await catalog.faults_of("create-admin", "--username=new", GRACE[1])

        assert both == [f"{taken}username is taken.", f"{taken}email is taken."]
        assert name == [f"{taken}username is taken."]
        assert address == [f"{taken}email is taken."]
        assert await catalog.query("SELECT COUNT(*) FROM users") == [(1,)]

    async def test_all_faults_are_reported_at_once(self, nowhere: CommandLine) -> None:
        faults = await nowhere.faults_of(
            "create-admin", "--username=x", "--email=y", "--password=s3kr1t"
        )

        assert faults == [
            "The service cannot run: The administrator's username must have 2 to 80 characters.",
            "The service cannot run: The administrator's e-mail address is not an e-mail address.",
            "The service cannot run: The administrator's password must have 8 to 128 characters.",
        ]

    async def test_guessable_password_is_refused_in_production(self, nowhere: CommandLine) -> None:
        for password in ("Superman", "grace-123"):
            (fault,) = await nowhere.faults_of(
                "create-admin", *GRACE, f"--password={password}", CATALOG_ENV="production"
            )

            assert "The administrator's password must not be " in fault
            assert password not in fault

    async def test_database_without_tables_is_reported_with_the_remedy(
        self, fresh: CommandLine
    ) -> None:
        faults = await fresh.faults_of("create-admin", *GRACE)

        assert faults == [
            "The service cannot run: The database has no tables yet; run: catalog migrate."
        ]

    async def test_invalid_encoding_or_empty_text_is_a_usage_error(
        self, nowhere: CommandLine
    ) -> None:
        garbled = await nowhere.run("create-admin", *GRACE, "--password=s3kr1t-\udcff")
        empty = await nowhere.run("create-admin", "--username=")

        assert (garbled.exit_code, empty.exit_code) == (2, 2)
        assert "s3kr1t" not in garbled.output


class TestTerminal:
    def test_password_is_prompted_for_twice_and_not_echoed(self, tmp_path: Path) -> None:
        environment = {
            **os.environ,
            "DATABASE_URL": f"sqlite:///{tmp_path}/catalog.db",
            "JWT_SECRET_KEY": SECRET.get_secret_value(),
        }
        catalog = [sys.executable, "-m", "catalog"]
        subprocess.run([*catalog, "migrate"], env=environment, check=True, capture_output=True)

        asked, said = answering(
            [*catalog, "create-admin", *GRACE], environment, answers=[PASSWORD, PASSWORD]
        )

        assert asked.split("\r\n") == ["Password: ", "Repeat for confirmation: ", ""]
        assert said.strip() == "Created the administrator 'grace'."
        assert PASSWORD not in asked + said


def answering(
    command: list[str], environment: dict[str, str], *, answers: list[str]
) -> tuple[str, str]:
    """Run a command at a terminal; return the terminal's text and the standard output."""
    terminal, its_end = pty.openpty()
    with subprocess.Popen(
        command,
        env=environment,
        stdin=its_end,
        stdout=subprocess.PIPE,
        stderr=its_end,
        start_new_session=True,
    ) as process:
        os.close(its_end)
        shown = b""
        for answer in answers:
            asked_before = shown.count(b": ")
            while shown.count(b": ") == asked_before:
                shown += os.read(terminal, 1024)
            os.write(terminal, f"{answer}\n".encode())
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, shown
        os.set_blocking(terminal, False)
        with suppress(OSError):
            shown += os.read(terminal, 1024)
    os.close(terminal)
    return shown.decode(), output.decode()
