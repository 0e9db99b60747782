"""Coverage-guided fuzzing (atheris) of parsers; findings are printed as Base64."""

import asyncio
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.figures import Figures
from tests.faults.fuzz_targets import CONTROLS, TARGETS
from tests.faults.scale import Scale

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        find_spec("atheris") is None,
        reason="atheris is not installed (it has no package for this Python): nothing is fuzzed",
    ),
]

LONGEST_BYTES = 65_536
AT_ONCE = 2
SHORT_SECONDS = 2
FULL_SECONDS = 120


class Outcome(NamedTuple):
    """Outcome of fuzzing a target."""

    code: int
    inputs: int
    output: str


async def fuzz(name: str, folder: Path, *, inputs: int, seconds: int) -> Outcome:
    """Fuzz a target in a process of its own, starting from its seeds."""
    corpus = folder / name
    corpus.mkdir()
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.fuzz", name),
        *(f"-runs={inputs}", f"-max_total_time={seconds}", f"-max_len={LONGEST_BYTES}"),
        *(f"-artifact_prefix={folder}/", "-seed=1", "-print_final_stats=1"),
        str(corpus),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode(errors="replace")
    executed = re.search(r"number_of_executed_units: (\d+)", text)
    assert process.returncode is not None
    return Outcome(process.returncode, int(executed.group(1)) if executed else 0, text[-3_000:])


class TestParsers:
    async def test_parsers_handle_fuzzed_input_within_bounds(
        self, tmp_path: Path, scale: Scale, figures: Figures
    ) -> None:
        seconds = FULL_SECONDS if scale.name == "full" else SHORT_SECONDS
        room = asyncio.Semaphore(AT_ONCE)

        async def put_to_the_test(name: str) -> Outcome:
            async with room:
                return await fuzz(name, tmp_path, inputs=scale.fuzz_inputs, seconds=seconds)

        names = [name for name in TARGETS if name not in CONTROLS]
        outcomes = await asyncio.gather(*map(put_to_the_test, names))

        for name, outcome in zip(names, outcomes, strict=True):
            figures.add(f"fuzzing {name}", "inputs without a finding", outcome.inputs)
        findings = {
            name: outcome.output
            for name, outcome in zip(names, outcomes, strict=True)
            if outcome.code
        }
        assert not findings, "\n\n".join(map("\n".join, findings.items()))

    @pytest.mark.parametrize(
        ("control", "finding"),
        [("planted-failure", "RuntimeError: planted"), ("planted-slowness", "TooSlow")],
    )
    async def test_planted_defect_is_detected(
        self, tmp_path: Path, control: str, finding: str
    ) -> None:
        outcome = await fuzz(control, tmp_path, inputs=200_000, seconds=60)

        assert outcome.code != 0
        assert finding in outcome.output
