"""Fuzz targets run on their seeds; needs no atheris, so it is part of the regular tests."""

import pytest

from tests.faults.fuzz_targets import CONTROLS, TARGETS


class TestTargets:
    @pytest.mark.parametrize("name", [name for name in TARGETS if name not in CONTROLS])
    def test_seeds_cause_no_findings(self, name: str) -> None:
        for seed in (*TARGETS[name].seeds, b""):
            TARGETS[name].run(seed)
