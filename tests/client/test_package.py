"""The client as a package of its own, and the examples of its documentation."""

import asyncio
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx

import catalog
from catalog.client.asynchronous import VERSION
from tests.client.examples import examples
from tests.server.service import Catalog

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


class TestExamples:
    async def test_examples_run(self, tmp_path: Path) -> None:
        programs = examples()
        async with Catalog(tmp_path).start() as service:
            url = (await service.serving()).url
            for number, program in enumerate(programs):
                file = tmp_path / f"example{number}.py"
                file.write_text(program.replace("http://127.0.0.1:8000", url))
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    file,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                output, _ = await process.communicate()
                assert process.returncode == 0, f"{program}\n{output.decode()}"

        assert len(programs) == 6

    def test_mirror_has_fewer_than_15_lines(self) -> None:
        (mirror,) = [program for program in examples() if "def keep_mirror" in program]
        body = mirror[mirror.index("async def") :]

        assert len([line for line in body.splitlines() if line.strip()]) < 15
