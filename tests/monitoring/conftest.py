"""Fixtures: Prometheus and promtool, where they are installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import FOUND, MISSING, REQUIRED
from tests.server.service import Catalog


@pytest.fixture(scope="session")
def prometheus(request: pytest.FixtureRequest) -> Path:
    """Find the program; promtool is in the same folder."""
    found = os.environ.get("CATALOG_TEST_PROMETHEUS") or shutil.which("prometheus")
    if found is not None and (Path(found).parent / "promtool").is_file():
        version = subprocess.run([found, "--version"], check=True, capture_output=True, text=True)
        request.config.stash[FOUND]["prometheus"] = " ".join(version.stdout.split()[:3])
        return Path(found)
    reason = request.config.stash[MISSING]["prometheus"] = (
        "prometheus and promtool are not there: rules and dashboard are not tried;"
        " CATALOG_TEST_PROMETHEUS may lead to them (apt-get install prometheus)"
    )
    if REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def promtool(prometheus: Path) -> Path:
    return prometheus.parent / "promtool"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Return the service, not started yet."""
    return Catalog(tmp_path)
