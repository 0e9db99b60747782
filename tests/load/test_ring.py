"""The service as the benchmark starts it."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import make_url

from tests.load.ring import Ring

_RATES = "from catalog.http.limits import FIXED_RATES; print({*FIXED_RATES.values()})"


def fixed_rates(environment: Mapping[str, str] | None = None) -> str:
    """Return the rate limits that are no settings, as a process of the service has them."""
    command = [sys.executable, "-c", _RATES]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return told.stdout.strip()


def test_measured_service_has_no_rate_limits(tmp_path: Path) -> None:
    ring = Ring(make_url("sqlite://"), "secret", sys.executable, tmp_path)

    assert fixed_rates(ring.environment()) == "{None}"
    # Negative control.
    assert "requests" in fixed_rates()
