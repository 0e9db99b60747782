"""The secret that is generated once and kept on disk."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import URL

from catalog.auth.tokens.signing_keys import existing_secret, signing_secret
from catalog.errors import StartFailed
from catalog.settings import Settings
from tests.engines import SECRET

# Forks eight children, which block on a pipe until all of them have started.
EIGHT_AT_ONCE = """
import os, sys
from catalog.auth.tokens.signing_keys import signing_secret
from catalog.settings import Settings

settings = Settings(database_url=sys.argv[1])
gate, opener = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        os.close(opener)
        os.read(gate, 1)
        os.write(1, signing_secret(settings).encode() + b"\\n")
        os._exit(0)
os.close(opener)
for _ in range(8):
    assert os.wait()[1] == 0
"""


class TestSigningSecret:
    @staticmethod
    def settings(folder: Path) -> Settings:
        url = URL.create("sqlite+aiosqlite", database=str(folder / "catalog.db"))
        return Settings(database_url=url)

    def test_secret_from_the_settings_is_used(self, tmp_path: Path) -> None:
        settings = self.settings(tmp_path).model_copy(update={"jwt_secret_key": SECRET})

        assert signing_secret(settings) == SECRET.get_secret_value()
        assert list(tmp_path.iterdir()) == []

    def test_secret_is_created_once_and_readable_by_its_owner_alone(self, tmp_path: Path) -> None:
        settings = self.settings(tmp_path / "var")

        first = signing_secret(settings)
        second = signing_secret(settings)

        (file,) = (tmp_path / "var").iterdir()
        assert first == second == file.read_text()
        assert len(bytes.fromhex(first)) == 32
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_file_mode_does_not_depend_on_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            signing_secret(self.settings(tmp_path))
        finally:
            os.umask(before)

        assert stat.S_IMODE((tmp_path / "jwt_secret_key").stat().st_mode) == 0o600

    def test_each_folder_has_its_own_secret(self, tmp_path: Path) -> None:
        secrets = {signing_secret(self.settings(tmp_path / name)) for name in "abc"}

        assert len(secrets) == 3

    @pytest.mark.parametrize("attempt", range(10))
    def test_threads_that_start_at_once_share_the_secret(
        self, tmp_path: Path, attempt: int
    ) -> None:
        settings = self.settings(tmp_path / str(attempt))
        ready = Barrier(8)

        def start(_: int) -> str:
            ready.wait()
            return signing_secret(settings)

        with ThreadPoolExecutor(8) as threads:
            secrets = set(threads.map(start, range(8)))

        assert len(secrets) == 1
        assert [file.name for file in (tmp_path / str(attempt)).iterdir()] == ["jwt_secret_key"]

    def test_processes_that_start_at_once_share_the_secret(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", EIGHT_AT_ONCE, f"sqlite:///{tmp_path}/catalog.db"]

        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout

        assert output.splitlines() == [(tmp_path / "jwt_secret_key").read_text()] * 8
        assert [file.name for file in tmp_path.iterdir()] == ["jwt_secret_key"]

    @pytest.mark.parametrize(
        "content",
        [b"", b"short", b"\xff" * 64, b"\n" * 64],
        ids=["empty", "short", "binary", "blank"],
    )
    def test_file_without_a_valid_secret_is_not_used(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "jwt_secret_key").write_bytes(content)

        with pytest.raises(StartFailed):
            signing_secret(self.settings(tmp_path))

    def test_folder_that_is_a_file_is_reported_as_not_writable(self, tmp_path: Path) -> None:
        (tmp_path / "var").write_text("a file")

        with pytest.raises(StartFailed, match="cannot be written"):
            signing_secret(self.settings(tmp_path / "var"))

    def test_trailing_newline_is_not_part_of_the_secret(self, tmp_path: Path) -> None:
        (tmp_path / "jwt_secret_key").write_text("k" * 40 + "\n")

        assert signing_secret(self.settings(tmp_path)) == "k" * 40

    def test_existing_secret_creates_none(self, tmp_path: Path) -> None:
        settings = self.settings(tmp_path)

        assert existing_secret(settings) is None
        assert list(tmp_path.iterdir()) == []
        made = signing_secret(settings)
        assert existing_secret(settings) == made
