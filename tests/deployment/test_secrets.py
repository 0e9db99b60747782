"""``./build.sh secrets``: .env and the secret files of the containers."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import make_url

from catalog.settings import parse_database_url
from catalog.settings.values import check_secret
from tests.deployment import compose


class Clone:
    """A clone that holds only build.sh."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(compose.ROOT / "build.sh", folder)

    def build(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``./build.sh secrets``."""
        return subprocess.run(
            ["./build.sh", "secrets"],
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", **environment},
            check=False,
            capture_output=True,
            text=True,
        )

    def write_env(self, text: str) -> None:
        """Write .env by hand."""
        (self.folder / ".env").write_text(text, encoding="utf-8")

    def secrets(self) -> dict[str, str]:
        """Return the content of each secret file by its name."""
        return {file.name: file.read_text() for file in (self.folder / ".secrets").iterdir()}


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestFresh:
    def test_env_is_written_with_new_secrets_and_mode_0600(self, clone: Clone) -> None:
        done = clone.build()

        assert done.returncode == 0, done.stderr
        assert mode_of(clone.folder / ".env") == 0o600
        secrets = clone.secrets()
        assert secrets.keys() == compose.stack()["secrets"].keys()
        check_secret(secrets["jwt_secret_key"])
        url = parse_database_url(secrets["database_url"])
        assert (url.host, url.username, url.database) == ("mysql", "catalog", "catalog")
        assert url.password == secrets["mysql_password"]
        assert len({secrets[name] for name in secrets if "password" in name}) == 4

    def test_two_clones_get_different_secrets(self, tmp_path: Path) -> None:
        clones = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            clones.append(Clone(tmp_path / name))
            clones[-1].build()

        first, second = (clone.secrets() for clone in clones)

        same = {name for name in first if first[name] == second[name]}
        assert same == {"mysql_user", "mysql_database"} | {
            *("jwt_previous_secret_keys", "jwt_private_key", "jwt_previous_public_keys")
        }

    def test_second_run_changes_nothing(self, clone: Clone) -> None:
        clone.build()
        before = clone.secrets(), (clone.folder / ".env").read_text()

        done = clone.build()

        assert done.stdout == ""
        assert (clone.secrets(), (clone.folder / ".env").read_text()) == before

    def test_secret_files_are_readable_inside_a_private_folder(self, clone: Clone) -> None:
        clone.build()

        folder = clone.folder / ".secrets"
        assert mode_of(folder) == 0o700
        assert {mode_of(file) for file in folder.iterdir()} == {0o644}

    def test_output_holds_no_secret(self, clone: Clone) -> None:
        done = clone.build()

        said = done.stdout + done.stderr
        assert not [
            name for name, value in clone.secrets().items() if len(value) > 9 and value in said
        ]

    def test_http_bind_of_the_environment_is_written_to_env(self, clone: Clone) -> None:
        clone.build(CATALOG_HTTP_BIND="0.0.0.0:80")

        assert "\nCATALOG_HTTP_BIND=0.0.0.0:80\n" in (clone.folder / ".env").read_text()


class TestExisting:
    def test_database_url_sets_user_password_and_database_of_mysql(self, clone: Clone) -> None:
        text = (
            "DATABASE_URL = mysql+pymysql://shop:p%40ss%5Cw'$x@mysql:3306/my_shop\n"
            "JWT_SECRET_KEY = Vd8Kq2ZrT5wXy7NbJm3LcPf9GhQs4AeU\n"
        )
        clone.write_env(text)

        done = clone.build()

        secrets = clone.secrets()
        assert done.returncode == 0, done.stderr
        assert (clone.folder / ".env").read_text() == text
        url = make_url(secrets["database_url"])
        assert (url.username, url.password, url.database) == ("shop", "p@ss\\w'$x", "my_shop")
        assert secrets["mysql_user"] == url.username
        assert secrets["mysql_password"] == url.password
        assert secrets["mysql_database"] == url.database
        assert secrets["jwt_secret_key"] == "Vd8Kq2ZrT5wXy7NbJm3LcPf9GhQs4AeU"

    def test_password_of_root_in_the_url_becomes_the_root_password(self, clone: Clone) -> None:
        clone.write_env("DATABASE_URL=mysql://root:tiger@mysql/catalog\n")

        clone.build()

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

        clone.build()

        assert clone.secrets()["admin_password"] == value

    def test_missing_secrets_are_generated_once(self, clone: Clone) -> None:
        shutil.copy(compose.ROOT / ".env.example", clone.folder / ".env")

        clone.build()
        before = clone.secrets()
        clone.build()

        assert clone.secrets() == before
        check_secret(before["jwt_secret_key"])
        assert before["mysql_password"] in before["database_url"]
        assert len(before["admin_password"]) >= 20

    def test_changed_key_is_written_in_place_into_the_mounted_file(self, clone: Clone) -> None:
        clone.build()
        file = clone.folder / ".secrets" / "jwt_secret_key"
        before = file.stat().st_ino
        clone.write_env("JWT_SECRET_KEY=Vd8Kq2ZrT5wXy7NbJm3LcPf9GhQs4AeU\n")

        clone.build()

        assert file.read_text() == "Vd8Kq2ZrT5wXy7NbJm3LcPf9GhQs4AeU"
        assert file.stat().st_ino == before

    @pytest.mark.parametrize(
        "url",
        [
            "sqlite:///var/catalog.db",
            "mysql://catalog:secret@db.example.com:3306/catalog",
            "mysql://catalog:secret@mysql:3307/catalog",
            "mysql://catalog:secret@mysql",
            "postgresql://catalog:secret@mysql/catalog",
        ],
    )
    def test_url_of_another_database_is_refused_without_echoing_it(
        self, clone: Clone, url: str
    ) -> None:
        clone.write_env(f"DATABASE_URL={url}\n")

        done = clone.build()

        assert done.returncode == 1
        assert done.stderr.startswith("build.sh: DATABASE_URL in .env does not lead to the MySQL")
        assert "secret" not in done.stderr
