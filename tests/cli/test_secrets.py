"""``catalog secrets``: .env and the secret files of the containers."""

import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import make_url

from catalog.cli import main
from catalog.cli import secrets as secrets_command
from catalog.settings import parse_database_url
from catalog.settings.process_environment import STACK_VARIABLES
from catalog.settings.values import check_secret
from tests.deployment import compose


class Clone:
    """A folder in which the command runs."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._patch = patch

    def run(self, *arguments: str, **environment: str) -> Result:
        """Run ``catalog secrets``, and re-raise an unexpected exception."""
        self._patch.chdir(self.folder)
        result = CliRunner().invoke(main, ["secrets", *arguments], env=environment)
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        return result

    def run_twice_at_once(self) -> bool:
        """Return whether two runs have generated secrets at the same time.

        Each waits for the other one when it generates a secret, until the first wait is in vain.
        """
        self._patch.chdir(self.folder)
        both = threading.Barrier(2, timeout=1)
        have_met = False

        def token_hex(size: int) -> str:
            nonlocal have_met
            with suppress(threading.BrokenBarrierError):
                both.wait()
                have_met = True
            return os.urandom(size).hex()

        self._patch.setattr(secrets_command, "token_hex", token_hex)
        # Not by the runner, which replaces the standard output of the process.
        command = secrets_command.secrets.callback
        assert command is not None
        with ThreadPoolExecutor(2) as threads:
            runs = [threads.submit(command, "8080") for _ in range(2)]
        for run in runs:
            run.result()
        return have_met

    @property
    def env_file(self) -> Path:
        return self.folder / ".env"

    def write_env(self, text: str) -> None:
        """Write .env by hand."""
        self.env_file.write_text(text, encoding="utf-8")

    def secrets(self) -> dict[str, str]:
        """Return the content of each secret file by its name."""
        return {file.name: file.read_text() for file in (self.folder / ".secrets").iterdir()}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    return Clone(tmp_path, monkeypatch)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestFresh:
    def test_env_is_written_with_new_secrets_and_mode_0600(self, clone: Clone) -> None:
        result = clone.run()

        assert result.exit_code == 0, result.stderr
        assert mode_of(clone.env_file) == 0o600
        secrets = clone.secrets()
        assert secrets.keys() == compose.stack()["secrets"].keys()
        check_secret(secrets["jwt_secret_key"])
        url = parse_database_url(secrets["database_url"])
        assert (url.host, url.username, url.database) == ("mysql", "catalog", "catalog")
        assert url.password == secrets["mysql_password"]
        assert len({secrets[name] for name in secrets if "password" in name}) == 4

    def test_two_clones_get_different_secrets(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clones = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            clones.append(Clone(tmp_path / name, monkeypatch))
            clones[-1].run()

        first, second = (clone.secrets() for clone in clones)

        same = {name for name in first if first[name] == second[name]}
        assert same == {"mysql_user", "mysql_database"} | {
            *("jwt_previous_secret_keys", "jwt_private_key", "jwt_previous_public_keys")
        }

    def test_second_run_changes_nothing(self, clone: Clone) -> None:
        clone.run()
        before = clone.secrets(), clone.env_file.read_text()

        result = clone.run()

        assert result.output == ""
        assert (clone.secrets(), clone.env_file.read_text()) == before

    def test_secret_files_are_readable_inside_a_private_folder(self, clone: Clone) -> None:
        clone.run()

        folder = clone.folder / ".secrets"
        assert mode_of(folder) == 0o700
        assert {mode_of(file) for file in folder.iterdir()} == {0o644}

    def test_output_holds_no_secret(self, clone: Clone) -> None:
        result = clone.run()

        assert result.output == "Wrote .env with new secrets.\n"

    @pytest.mark.parametrize("bind", ["80", "0.0.0.0:80", "[::1]:8080", "127.0.0.1:65535"])
    def test_http_bind_of_the_option_is_written_to_env(self, clone: Clone, bind: str) -> None:
        assert clone.run("--http-bind", bind).exit_code == 0

        assert f"\nCATALOG_HTTP_BIND={bind}\n" in clone.env_file.read_text()

    @pytest.mark.parametrize(
        "bind",
        [
            *("nonsense", "0.0.0.0:99999", "0.0.0.0:0", "0.0.0.0:", "::1:80", "[::1]", ":80"),
            *("localhost:80", "80\nJWT_SECRET_KEY=x", "127.0.0.1:80 "),
        ],
    )
    def test_http_bind_that_cannot_be_published_is_refused(self, clone: Clone, bind: str) -> None:
        results = [clone.run("--http-bind", bind), clone.run(CATALOG_HTTP_BIND=bind)]

        assert [result.exit_code for result in results] == [2, 2]
        assert "must be a port, or address:port." in results[0].stderr
        assert not clone.env_file.exists()

    def test_http_bind_that_an_existing_env_does_not_have_is_refused(self, clone: Clone) -> None:
        clone.run("--http-bind", "8081")

        same = clone.run("--http-bind", "8081")
        other = clone.run("--http-bind", "8082")
        variable = clone.run(CATALOG_HTTP_BIND="8082")

        assert (same.exit_code, other.exit_code, variable.exit_code) == (0, 2, 0)
        assert ".env exists and is never changed: set CATALOG_HTTP_BIND in it." in other.stderr
        assert "\nCATALOG_HTTP_BIND=8081\n" in clone.env_file.read_text()

    def test_http_bind_of_the_environment_is_written_to_env(self, clone: Clone) -> None:
        clone.run(CATALOG_HTTP_BIND="0.0.0.0:80")

        assert "\nCATALOG_HTTP_BIND=0.0.0.0:80\n" in clone.env_file.read_text()

    def test_temporary_files_are_removed(self, clone: Clone) -> None:
        clone.run()

        assert {path.name for path in clone.folder.iterdir()} == {".env", ".secrets"}
        assert clone.secrets().keys() == compose.stack()["secrets"].keys()

    def test_concurrent_runs_agree_on_the_first_ones_secrets(
        self, clone: Clone, capsys: pytest.CaptureFixture[str]
    ) -> None:
        have_met = clone.run_twice_at_once()

        assert not have_met
        assert capsys.readouterr().out == "Wrote .env with new secrets.\n"
        secrets = clone.secrets()
        assert f"DATABASE_URL={secrets['database_url']}\n" in clone.env_file.read_text()
        assert make_url(secrets["database_url"]).password == secrets["mysql_password"]
        assert secrets["valkey_auth"].removeprefix("requirepass ") in secrets["limits_url"]

    def test_runs_without_the_lock_generate_secrets_at_once(
        self, clone: Clone, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Negative control of the test above."""
        monkeypatch.setattr(secrets_command, "_locked", lambda _: nullcontext())

        assert clone.run_twice_at_once()


class TestExisting:
    def test_database_url_sets_user_password_and_database_of_mysql(self, clone: Clone) -> None:
        text = (
            "DATABASE_URL = mysql+pymysql://shop:p%40ss%5Cw'$x@mysql:3306/my_shop\n"
            "JWT_SECRET_KEY = Vd8Kq2ZrT5wXy7NbJm3LcPf9GhQs4AeU\n"
        )
        clone.write_env(text)

        result = clone.run()

        secrets = clone.secrets()
        assert result.exit_code == 0, result.stderr
        assert clone.env_file.read_text() == text
        url = make_url(secrets["database_url"])
        assert (url.username, url.password, url.database) == ("shop", "p@ss\\w'$x", "my_shop")
        assert secrets["mysql_user"] == url.username
        assert secrets["mysql_password"] == url.password
        assert secrets["mysql_database"] == url.database
        assert secrets["jwt_secret_key"] == "Vd8Kq2ZrT5wXy7NbJm3LcPf9GhQs4AeU"

    def test_password_of_root_in_the_url_becomes_the_root_password(self, clone: Clone) -> None:
        clone.write_env("DATABASE_URL=mysql://root:tiger@mysql/catalog\n")

        clone.run()

        secrets = clone.secrets()
        assert secrets["mysql_root_password"] == "tiger"
        assert secrets["mysql_user"] == secrets["mysql_password"] == ""

    @pytest.mark.parametrize(
        ("line", "value"),
        [
            ("ADMIN_PASSWORD=one two", "one two"),
            ("ADMIN_PASSWORD = 'one # two' ", "one # two"),
            ('ADMIN_PASSWORD="one" # two', "one"),
            ("ADMIN_PASSWORD=one # two", "one"),
            ("ADMIN_PASSWORD=one#two", "one#two"),
            ("  export ADMIN_PASSWORD=one", "one"),
            ("ADMIN_PASSWORD=one\r", "one"),
            ("ADMIN_PASSWORD=zero\nADMIN_PASSWORD=one", "one"),
            ("#ADMIN_PASSWORD=zero\nADMIN_PASSWORD=one", "one"),
        ],
    )
    def test_env_is_parsed_as_compose_parses_it(self, clone: Clone, line: str, value: str) -> None:
        clone.write_env(f"{line}\n")

        clone.run()

        assert clone.secrets()["admin_password"] == value

    def test_missing_secrets_are_generated_once(self, clone: Clone) -> None:
        shutil.copy(compose.ROOT / ".env.example", clone.env_file)

        clone.run()
        before = clone.secrets()
        clone.run()

        assert clone.secrets() == before
        check_secret(before["jwt_secret_key"])
        assert before["mysql_password"] in before["database_url"]
        assert len(before["admin_password"]) >= 20

    def test_changed_key_is_written_in_place_into_the_mounted_file(self, clone: Clone) -> None:
        clone.run()
        file = clone.folder / ".secrets" / "jwt_secret_key"
        before = file.stat().st_ino
        clone.write_env("JWT_SECRET_KEY=Vd8Kq2ZrT5wXy7NbJm3LcPf9GhQs4AeU\n")

        clone.run()

        assert file.read_text() == "Vd8Kq2ZrT5wXy7NbJm3LcPf9GhQs4AeU"
        assert file.stat().st_ino == before

    @pytest.mark.parametrize(
        ("url", "fault"),
        [
            ("sqlite:///var/catalog.db", "does not lead to the MySQL of this stack"),
            ("mysql://catalog:secret@db.example.com:3306/catalog", "does not lead to the MySQL"),
            ("mysql://catalog:secret@mysql:3307/catalog", "does not lead to the MySQL"),
            ("mysql://catalog:secret@mysql", "must name a database"),
            ("postgresql://catalog:secret@mysql/catalog", "must begin with mysql://"),
        ],
    )
    def test_url_of_another_database_is_refused_without_echoing_it(
        self, clone: Clone, url: str, fault: str
    ) -> None:
        clone.write_env(f"DATABASE_URL={url}\n")

        result = clone.run()

        assert result.exit_code == 1
        assert result.stderr.startswith(f"The service cannot run: DATABASE_URL in .env {fault}")
        assert "secret" not in result.output
        assert list((clone.folder / ".secrets").iterdir()) == []

    def test_line_without_an_assignment_is_refused_without_echoing_it(self, clone: Clone) -> None:
        clone.write_env("ADMIN_PASSWORD=one\n\ntop secret words\n")

        result = clone.run()

        assert result.exit_code == 1
        assert result.stderr == "The service cannot run: .env, line 3, is not NAME=value.\n"

    def test_key_of_several_lines_is_written_as_it_is(self, clone: Clone) -> None:
        pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ\n-----END PRIVATE KEY-----"
        clone.write_env(f"CATALOG_JWT_PRIVATE_KEY='{pem}'\n")

        clone.run()

        assert clone.secrets()["jwt_private_key"] == pem


class TestNames:
    def test_settings_of_earlier_releases_are_refused(self, clone: Clone) -> None:
        clone.write_env(
            "CATALOG_SESSION_TTL=60\nCATALOG_LOG_FORMAT=console\nCATALOG_BODY_TIMEOUT=\n"
        )

        result = clone.run()

        assert result.exit_code == 1
        assert result.stderr.splitlines() == [
            "The settings are not valid: CATALOG_SESSION_TTL is no longer a setting: "
            "it is 3 times CATALOG_REFRESH_TOKEN_TTL always",
            "The settings are not valid: CATALOG_LOG_FORMAT is no longer a setting: "
            "the log is JSON, and for reading on a terminal",
        ]
        assert not (clone.folder / ".secrets").exists()

    def test_unknown_name_is_a_warning(self, clone: Clone) -> None:
        clone.write_env("CATALOG_WORKRES=2\nCATALOG_WORKERS=2\nCATALOG_HTTP_BIND=8080\nPORT=1\n")

        result = clone.run()

        assert result.exit_code == 0
        assert (
            result.stderr == "WARNING: CATALOG_WORKRES in .env is not a setting of this release.\n"
        )

    def test_every_variable_of_the_stack_is_known(self) -> None:
        names = {name for name in compose.variables() if name.startswith("CATALOG_")}

        assert names <= STACK_VARIABLES | {"CATALOG_ENV", "CATALOG_ACCESS_LOG"}
