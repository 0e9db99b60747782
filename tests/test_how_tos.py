"""The commands of docs/deployment/, run as a reader would, below another folder than /etc."""

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from dotenv import dotenv_values
from sqlalchemy import URL

from catalog.auth.tokens.signing_keys import KeyRing
from catalog.settings import load_settings, variable_names
from tests.build_script import commands
from tests.code_blocks import blocks, blocks_of, run
from tests.engines import migrate

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


class Server:
    """A machine's /etc, of which each start and each reload of the service keeps a copy."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.etc = folder / "etc"
        self.etc.mkdir()
        self._copies = folder / "copies"
        self._copies.mkdir()
        self._monkeypatch = monkeypatch

    def run(self, script: str) -> None:
        """Run commands that name /etc, users that do not exist here, and systemctl."""
        script = script.replace("/etc/", f"{self.etc}/").replace("-o root -g catalog ", "")
        script = script.replace("/opt/catalog/.env.example", str(ROOT / ".env.example"))
        copy = f"{self._copies}/$(ls {self._copies} | wc -l)"
        run(f"systemctl() {{ cp -r {self.etc}/catalog {copy}; }}\n{script}", self.etc)

    def load(self, keys: Path) -> KeyRing:
        """Return the keys that the service reads from /etc/catalog.env and a copy."""
        with self._monkeypatch.context() as patch:
            for name, value in dotenv_values(self.etc / "catalog.env").items():
                patch.setenv(name, (value or "").replace(f"{self.etc}/catalog/", f"{keys}/"))
            settings = load_settings()
            assert settings.env == "production"
            assert settings.jwt_secret_key is not None
            return KeyRing(settings, settings.jwt_secret_key.get_secret_value())

    def rings(self) -> list[KeyRing]:
        """Return the keys of each start and reload, in order."""
        copies = sorted(self._copies.iterdir(), key=lambda copy: int(copy.name))
        return [self.load(copy) for copy in copies]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Return a server with settings as docs/deployment/systemd.md makes them."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    server = Server(tmp_path, monkeypatch)
    lines = blocks("systemd.md")[0].splitlines()
    server.run("\n".join(line for line in lines if line.startswith(("install", "sed"))))
    return server


class TestSystemd:
    def test_settings_have_a_secret_of_their_own(self, server: Server) -> None:
        assert re.fullmatch(
            "[0-9a-f]{64}", dotenv_values(server.etc / "catalog.env")["JWT_SECRET_KEY"] or ""
        )

    def test_check_finds_only_that_there_is_no_database(
        self, server: Server, tmp_path: Path
    ) -> None:
        (script,) = [block for block in blocks("systemd.md") if "catalog check" in block]
        own = {
            "/etc/": f"{server.etc}/",
            # The page's port may be taken here, and its user does not exist.
            "cd /var/lib/catalog": f"export CATALOG_BIND=127.0.0.1:0; cd {tmp_path}",
            "setpriv --reuid catalog --regid catalog --clear-groups": "",
            "/opt/catalog/.venv/bin/catalog": f"{sys.executable} -m catalog",
        }
        checked = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", replaced(script, own)],
            check=False,
            capture_output=True,
            text=True,
        )

        faults = re.findall(r"^FAULT (\w+)", checked.stdout + checked.stderr, re.MULTILINE)
        assert (checked.returncode, faults) == (1, ["database"])

    def test_unit_waits_longer_than_the_longest_stop(self) -> None:
        (unit,) = blocks("systemd.md", "ini")
        found = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)

        assert found is not None
        assert int(found[1]) > load_settings().drain_delay + 30


class TestKeys:
    def test_rotations_leave_no_token_unknown(self, server: Server) -> None:
        once, secret, private, back = blocks("keys.md")
        for script in (once, secret, private, private, back):
            server.run(script)
        rings = server.rings()

        assert len(rings) == 1 + 3 + 3 + 3 + 1
        algorithms = [ring.for_access.algorithm for ring in rings]
        assert algorithms == ["HS256"] * 5 + ["EdDSA"] * 5 + ["HS256"]
        # Old and new workers serve side by side during a reload.
        for old, new in pairwise(rings):
            for key in (old.for_access, old.for_refresh):
                assert new.find(key.kid) is not None
            for key in (new.for_access, new.for_refresh):
                assert old.find(key.kid) is not None

    def test_rotations_end_with_new_keys_alone(self, server: Server) -> None:
        once, secret, private, _ = blocks("keys.md")
        for script in (once, secret, private, private):
            server.run(script)
        rings = server.rings()

        assert len({ring.for_refresh.kid for ring in rings}) == 2
        assert len({ring.for_access.kid for ring in rings}) == 4
        assert rings[3].previous == rings[6].previous == rings[9].previous == []


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="sqlite3 is not installed")
class TestBackup:
    async def test_restored_file_is_the_one_that_was_backed_up(self, tmp_path: Path) -> None:
        live = tmp_path / "catalog.db"
        await migrate(URL.create("sqlite+aiosqlite", database=str(live)))
        folders = {"/var/lib/catalog/var/": f"{tmp_path}/", "/var/backups/": f"{tmp_path}/backup-"}
        back_up, restore, *_ = (replaced(block, folders) for block in blocks("backup.md"))

        run(back_up, tmp_path)
        run(f"sqlite3 {live} 'DROP TABLE products'", tmp_path)
        run(restore, tmp_path)

        restored = dump(live)
        assert "CREATE TABLE products (" in restored
        assert restored == dump(tmp_path / "backup-catalog.db")
        assert sorted(restored) == sorted(dump(tmp_path / "backup-catalog-compact.db"))


def replaced(text: str, words: dict[str, str]) -> str:
    for old, new in words.items():
        text = text.replace(old, new)
    return text


def dump(path: Path) -> list[str]:
    """Return the lines of a SQLite database as SQL."""
    command = ["sqlite3", str(path), ".dump"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return result.stdout.splitlines()


class TestBlocks:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_commands_can_be_parsed(self, page: Path) -> None:
        for block in blocks_of(page, "bash"):
            parsed = subprocess.run(
                ["bash", "-n"], input=block, check=False, capture_output=True, text=True
            )
            assert parsed.returncode == 0, parsed.stderr

    def test_commands_of_the_build_exist(self) -> None:
        for page in PAGES:
            named = set(re.findall(r"\./build\.sh ([a-z]+)", page.read_text(encoding="utf-8")))
            assert named <= commands(), page

    def test_settings_in_commands_exist(self) -> None:
        known = set(variable_names().values())
        for page in (ROOT / "docs" / "deployment").iterdir():
            for block in blocks_of(page, "bash"):
                named = set(re.findall(r"\b(?:CATALOG|ADMIN)_[A-Z_]*[A-Z]\b", block))
                assert {name.removesuffix("_FILE") for name in named} - {"CATALOG_TLS"} <= known
