"""The folder in which the service is started: its modules take part in nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.service import Catalog

SCRIPT = Path(sys.executable).parent / "catalog"

FOREIGN = {
    "namespace package": {"catalog/readme.txt": ""},
    "package": {"catalog/__init__.py": "raise SystemExit(9)"},
    "libraries": {
        f"{name}.py": "raise SystemExit(9)"
        for name in ("orjson", "hypercorn", "structlog", "click", "email", "typing")
    },
}
"""Files of the folder by kind."""


@pytest.fixture(params=FOREIGN)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "start"
    for name, text in FOREIGN[request.param].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


class TestStartFolder:
    async def test_supervisor_and_workers_ignore_its_modules(
        self, catalog: Catalog, folder: Path
    ) -> None:
        catalog.command = [sys.executable, str(SCRIPT)]
        catalog.working_folder = folder

        async with catalog.start() as service:
            await service.serving()

            assert (await service.get("/api/products")).status == 200

    def test_command_line_ignores_its_modules(self, folder: Path) -> None:
        done = subprocess.run(
            [sys.executable, SCRIPT, "openapi"],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
        )

        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("folder", ["libraries"], indirect=True)
    def test_module_as_a_command_ignores_other_modules_than_itself(self, folder: Path) -> None:
        for name in ("email", "typing"):
            # Python may import these before the service can exclude the folder.
            (folder / f"{name}.py").unlink()

        done = subprocess.run(
            [sys.executable, "-m", "catalog", "openapi"],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
        )

        assert (done.returncode, done.stderr) == (0, "")
