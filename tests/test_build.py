"""``./build.sh``: its commands and the scripts behind them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.build_script import SCRIPT, commands
from tests.conftest import UNMARKED, runs_alone

ROOT = Path(__file__).parent.parent

# Sourced by other scripts, so neither executable nor with a shebang.
SOURCED = {"docker/messages.sh", "docker/apt.sh", "tests/programs.sh"}


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run build.sh from another folder."""
    return subprocess.run(
        [ROOT / "build.sh", *arguments], cwd="/", check=False, capture_output=True, text=True
    )


class TestDispatcher:
    def test_help_lists_exactly_the_commands(self) -> None:
        result = build("help")

        listed = re.findall(r"^  ([a-z]+) +[a-z]", result.stdout, re.MULTILINE)
        assert result.returncode == 0
        assert sorted(listed) == sorted({*commands(), "help"})
        assert len(listed) == 16

    def test_help_is_the_default(self) -> None:
        assert build().stdout == build("help").stdout

    def test_unknown_command_prints_the_help_and_exits_with_2(self) -> None:
        result = build("nonsense")

        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == build("help").stdout

    def test_script_of_each_command_is_executable(self) -> None:
        scripts = re.findall(r"(?:docker|tests)/[a-z/]+\.sh", SCRIPT)

        assert len(scripts) >= 8
        for script in scripts:
            assert os.access(ROOT / script, os.X_OK), script

    def test_dispatcher_is_short(self) -> None:
        assert len(SCRIPT.splitlines()) <= 150


class TestScripts:
    @pytest.mark.parametrize("name", sorted(SOURCED))
    def test_sourced_script_is_not_executable(self, name: str) -> None:
        assert not os.access(ROOT / name, os.X_OK)
        assert not (ROOT / name).read_text(encoding="utf-8").startswith("#!")

    @pytest.mark.parametrize("name", ["docker/venv.sh", "docker/stack.sh", "tests/run.sh"])
    def test_script_with_unknown_word_names_the_known_ones(self, name: str) -> None:
        result = subprocess.run(
            [ROOT / name, "nonsense"], check=False, capture_output=True, text=True
        )

        assert result.returncode == 1
        assert re.fullmatch(rf"build\.sh: {Path(name).name} .*: .+\.\n", result.stderr)


class TestInterpreter:
    def test_interpreter_that_is_too_old_is_refused(self, tmp_path: Path) -> None:
        old = tmp_path / "python"
        old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
        old.chmod(0o755)

        result = subprocess.run(
            [ROOT / "build.sh", "setup"],
            env={**os.environ, "PYTHON": str(old), "VENV": str(tmp_path / "venv")},
            check=False,
            capture_output=True,
            text=True,
        )

        assert result.returncode == 1
        assert result.stderr == (
            f"build.sh: {old} is not Python 3.11, 3.12 or 3.13; set PYTHON to the path of one.\n"
        )
        assert not (tmp_path / "venv").exists()


class TestRun:
    """``./build.sh run`` in a folder of its own, with settings that it refuses."""

    @pytest.fixture
    def clone(self, tmp_path: Path) -> Path:
        (tmp_path / "docker").mkdir()
        for name in ("run.sh", "messages.sh"):
            shutil.copy(ROOT / "docker" / name, tmp_path / "docker")
        # The virtual environment is that of these tests.
        (tmp_path / "docker" / "venv.sh").write_text("#!/bin/sh\n")
        (tmp_path / "docker" / "venv.sh").chmod(0o755)
        return tmp_path

    def run(self, clone: Path, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [clone / "docker" / "run.sh", *arguments],
            env={**os.environ, "VENV": sys.prefix, **environment},
            cwd="/",
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1, done.stderr
        return done.stdout + done.stderr

    def test_env_file_of_the_clone_is_read(self, clone: Path) -> None:
        (clone / ".env").write_text("CATALOG_WORKERS=many\r\nCATALOG_BIND='here'\r\n")

        said = self.run(clone)

        assert "The settings are not valid: CATALOG_WORKERS must be a whole number\n" in said
        assert "The settings are not valid: CATALOG_BIND must be" in said

    def test_variables_and_options_win_over_the_env_file(self, clone: Path) -> None:
        (clone / ".env").write_text("CATALOG_WORKERS=many\nCATALOG_BIND=here\n")

        said = self.run(clone, "--workers=0", CATALOG_BIND="127.0.0.1:0")

        assert "CATALOG_WORKERS must be at least 1\n" in said
        assert "CATALOG_BIND" not in said

    @pytest.mark.parametrize(
        "url", ["mysql://u:p@mysql:3306/shop", "mysql+pymysql://u:p@mysql/shop"]
    )
    def test_database_of_the_containers_is_replaced_by_sqlite(self, clone: Path, url: str) -> None:
        (clone / ".env").write_text(f"DATABASE_URL={url}\nCATALOG_WORKERS=0\n")

        said = self.run(clone)
        given = self.run(clone, DATABASE_URL="mysql://127.0.0.1/shop")

        assert "Using sqlite:///var/catalog.db: the DATABASE_URL in .env is that of the" in said
        assert "Using sqlite" not in given

    def test_other_database_stays(self, clone: Path) -> None:
        for url in ("mysql://u:mysql@db:3306/mysql", "sqlite:///mysql"):
            (clone / ".env").write_text(f"DATABASE_URL={url}\nCATALOG_WORKERS=0\n")

            assert "Using sqlite" not in self.run(clone)


class TestProcesses:
    """Whether a run with ``-n auto`` takes several processes."""

    FILE = "tests/test_build.py"

    @pytest.mark.parametrize("arguments", [["tests"], ["tests/db", "tests/ui"], [FILE, FILE]])
    def test_folders_and_several_files_take_processes(self, arguments: list[str]) -> None:
        assert not runs_alone(arguments, markers=UNMARKED, capture="fd")

    @pytest.mark.parametrize("argument", [FILE, f"{FILE}::TestProcesses::FILE"])
    def test_single_file_runs_without_workers(
        self, argument: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(ROOT)

        assert runs_alone([argument], markers=UNMARKED, capture="fd")

    def test_measuring_tests_run_without_workers(self) -> None:
        assert runs_alone(["tests"], markers="cluster", capture="fd")
        assert runs_alone(["tests"], markers=UNMARKED, capture="no")

    def test_usual_markers_are_those_of_the_configuration(
        self, pytestconfig: pytest.Config
    ) -> None:
        assert pytestconfig.getini("addopts")[-2:] == ["-m", UNMARKED]
