"""The client as a package of its own."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx

import catalog
from catalog.client.asynchronous import VERSION

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "catalog" / "client"

# Prints the modules that the client needs, with nothing of this repository to find.
NEEDED = """
import sys
sys.path[:0] = [{client!r}]
sys.path.append({packages!r})
import catalog.client
print(catalog.client.__file__)
print(*sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""


class TestDistribution:
    def test_installed_client_works_without_the_packages_of_the_service(
        self, tmp_path: Path
    ) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        # A copy, because a build leaves files behind.
        shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
        options = ("--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
        install: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "install",
            *options,
            "--target",
            target,
            source,
        ]
        subprocess.run(install, check=True)
        packages = str(Path(httpx.__file__).parents[1])

        code = NEEDED.replace("{client!r}", repr(str(target)))
        code = code.replace("{packages!r}", repr(packages))
        # Without ``site``, which would find this repository.
        found = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True
        )

        where, modules = found.stdout.splitlines()
        assert Path(where).is_relative_to(target)
        assert {"catalog", "httpx"} <= set(modules.split())
        service = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        names = {re.split(r"[^\w-]", each, maxsplit=1)[0].replace("-", "_") for each in service}
        # httpx imports click for its own command line, if it is there.
        assert names & set(modules.split()) <= {"click"}

    def test_versions_of_client_and_service_are_equal(self) -> None:
        project = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]

        assert VERSION == project["version"] == catalog.__version__
