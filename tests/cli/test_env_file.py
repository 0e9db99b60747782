"""``catalog --env-file`` and the syntax of .env files."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from catalog.errors import OperatorError
from catalog.settings.env_file import load_env_file, read_env_file
from tests.cli.commands import CommandLine


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def values_of(path: Path, text: str) -> dict[str, str]:
    path.write_bytes(text.encode())
    return read_env_file(path)


class TestSyntax:
    @pytest.mark.parametrize(
        ("line", "value"),
        [
            ("A=one", "one"),
            ("A = one two ", "one two"),
            ("export A=one", "one"),
            ("A=one # a comment", "one"),
            ("A=one#no-comment", "one#no-comment"),
            ("A='one # two'  # three", "one # two"),
            ('A="one\\ntwo"', "one\ntwo"),
            ("A='one\\ntwo'", "one\\ntwo"),
            ("A='one\ntwo'", "one\ntwo"),
            ("A=", ""),
            ("A=\r\n", ""),
            ("A=one\r\nB=two\r\n", "one"),
            ("\ufeffA=one", "one"),
            ("# A=no\n\nA=one", "one"),
            ("A=no\nA=one", "one"),
        ],
        ids=ascii,
    )
    def test_value_is_read_as_compose_reads_it(self, env_file: Path, line: str, value: str) -> None:
        assert values_of(env_file, line)["A"] == value

    def test_name_without_a_value_is_left_to_the_environment(self, env_file: Path) -> None:
        assert values_of(env_file, "A\nB=1\n") == {"B": "1"}

    @pytest.mark.parametrize("line", ["A B=1", "=1", "A='1", "A=\0", "A=1\0"], ids=ascii)
    def test_other_line_is_refused_by_its_number_alone(self, env_file: Path, line: str) -> None:
        with pytest.raises(OperatorError) as refused:
            values_of(env_file, f"X=1\n\n{line}\n")

        assert str(refused.value) == f"{env_file}, line 3, is not NAME=value."

    def test_file_in_another_encoding_is_refused(self, env_file: Path) -> None:
        env_file.write_bytes(b"A=\xff\n")

        with pytest.raises(OperatorError, match="is not UTF-8"):
            read_env_file(env_file)


class TestReferences:
    @pytest.mark.parametrize(
        ("written", "value"),
        [
            ("$B", "two"),
            ("${B}", "two"),
            ('"${B}/x"', "two/x"),
            ("'${B}$B'", "${B}$B"),
            ("${NONE}", ""),
            ("${NONE:-other}", "other"),
            ("${NONE-other}", "other"),
            ("${EMPTY:-other}", "other"),
            ("${EMPTY-other}", ""),
            ("${B:-other}", "two"),
            ("${B:+other}", "other"),
            ("${EMPTY:+other}", ""),
            ("${EMPTY+other}", "other"),
            ("${NONE+other}", ""),
            ("${B:?is needed}", "two"),
            ("a$$B", "a$B"),
            (r'"a\$B"', "a$B"),
            ("pa$word", "pa$word"),
            ("pa$", "pa$"),
            ("${", "${"),
            ("$1", "$1"),
        ],
    )
    def test_reference_is_resolved_as_compose_resolves_it(
        self, env_file: Path, written: str, value: str
    ) -> None:
        assert values_of(env_file, f"B=two\nEMPTY=\nA={written}\n")["A"] == value

    def test_variable_of_the_environment_wins_over_the_file(
        self, env_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("B", "environment")

        assert values_of(env_file, "B=file\nA=$B\n")["A"] == "environment"

    def test_missing_required_variable_is_refused_by_its_name(self, env_file: Path) -> None:
        with pytest.raises(OperatorError, match=r", line 1, requires NONE, which is not set\.$"):
            values_of(env_file, "A=${NONE:?secret words}\n")


class TestLoad:
    def test_variables_that_are_set_win(
        self, env_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        env_file.write_text("CATALOG_WORKERS=2\nCATALOG_ENV=production\nCATALOG_BIND=[::1]:1\n")
        monkeypatch.setattr(os, "environ", {"CATALOG_WORKERS": "3", "CATALOG_ENV": ""})

        load_env_file(env_file)

        assert os.environ == {
            "CATALOG_WORKERS": "3",
            "CATALOG_ENV": "",
            "CATALOG_BIND": "[::1]:1",
        }

    async def test_option_applies_to_every_command(self, env_file: Path) -> None:
        env_file.write_text("CATALOG_WORKERS='many'\r\n")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "catalog", "--env-file", str(env_file), "check"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

        output, _ = await process.communicate()

        assert process.returncode == 1
        assert output.startswith(b"FAULT settings: CATALOG_WORKERS ")

    async def test_missing_file_is_wrong_usage(self, nowhere: CommandLine) -> None:
        assert (await nowhere.run("--env-file", "missing.env", "check")).exit_code == 2
