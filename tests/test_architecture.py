"""Promises that no single module can keep: how the parts fit and what is shipped."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCK_FILES = ("requirements.lock", "tests/requirements.lock")


def requirements_of(lock_file: str) -> dict[str, list[str]]:
    """The locked packages by name, each with the lines that pin it; one may be there twice."""
    text = (ROOT / lock_file).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=\S)", text):
        if not entry.startswith("#"):
            found.setdefault(entry.partition("==")[0], []).append(entry)
    return found


def name_of(requirement: str) -> str:
    """The normal form of the name that a requirement begins with."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


class TestLockFiles:
    @pytest.mark.parametrize("lock_file", LOCK_FILES)
    def test_every_requirement_is_one_version_with_hashes(self, lock_file: str) -> None:
        for entries in requirements_of(lock_file).values():
            for entry in entries:
                assert re.match(r"[a-z0-9.-]+==[\w.]+( ; [^\\]+)? \\\n", entry), entry
                assert "--hash=sha256:" in entry, entry

    @pytest.mark.parametrize("lock_file", LOCK_FILES)
    def test_where_packages_come_from_is_left_to_the_machine(self, lock_file: str) -> None:
        text = (ROOT / lock_file).read_text(encoding="utf-8")

        assert not re.search(r"://|^\s*--(?!hash=)|^\s*#.*\s/", text, re.MULTILINE)

    def test_every_dependency_of_the_service_is_locked(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        wanted = project["project"]["dependencies"] + project["build-system"]["requires"]

        assert {name_of(requirement) for requirement in wanted} <= set(
            requirements_of("requirements.lock")
        )

    def test_every_tool_is_locked(self) -> None:
        lines = (ROOT / "tests/requirements.in").read_text(encoding="utf-8").splitlines()
        wanted = {name_of(line) for line in lines if not line.startswith("#")}

        assert wanted <= set(requirements_of("tests/requirements.lock"))

    def test_the_tools_run_beside_what_the_service_is_shipped_with(self) -> None:
        service, tools = map(requirements_of, LOCK_FILES)

        for name in service.keys() & tools.keys():
            assert {entry.split()[0] for entry in tools[name]} <= {
                entry.split()[0] for entry in service[name]
            }


class TestPackage:
    def test_it_tells_type_checkers_that_it_is_typed(self) -> None:
        assert files("catalog").joinpath("py.typed").is_file()
