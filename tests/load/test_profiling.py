"""Profiles of the service under load, with a sampler that returns known stacks."""

import re
import shutil

import click
import pytest

from tests.load import profiling, workloads
from tests.load.contestants import Contestant
from tests.load.processes import with_descendants
from tests.load.profiling import DRAWN, PROFILED, Profiles
from tests.load.report import DOCS
from tests.load.workloads.turns import Turns

STACK = "thread (7): MainThread;Runner.run (asyncio/runners.py:1);serve (catalog/a.py:3)"

pytestmark = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk is not there: the load that it makes is not tested"
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "LEAST_SECONDS", 1)


def profiles_of(turns: Turns, script: str) -> Profiles:
    """Return profiles by a sampler that is a shell script; its last argument is the output."""
    sampler = turns.folder / "sampler"
    sampler.write_text(f'#!/bin/sh\necho "$@" >>"{turns.folder}/calls"\n{script}\n')
    sampler.chmod(0o755)
    profiles = Profiles(turns.options, turns.contestants, turns.folder, str(sampler))
    profiles.pictures = turns.folder / "pictures"
    return profiles


def sampled(count: int) -> str:
    """Return a script that writes so many samples."""
    return f'for file; do :; done; echo "{STACK} {count}" >"$file"'


async def test_worker_is_sampled_and_drawn(turns: Turns, site: Contestant) -> None:
    profiles = profiles_of(turns, sampled(500))

    await workloads.WORKLOADS["edit"](profiles)

    (call,) = (turns.folder / "calls").read_text().splitlines()
    pid = int(call.split("--pid ")[1].split()[0])
    assert pid in {*with_descendants(site.pids[0])} - {*site.pids}
    (picture,) = profiles.pictures.iterdir()
    assert picture.name == "edit.svg"
    drawn = picture.read_text()
    assert "serve (catalog/a.py): 100.0%" in drawn
    assert re.search(r"random products, directly: a worker at \d+% of a core, 500 samples", drawn)


async def test_too_few_samples_are_no_profile(turns: Turns) -> None:
    profiles = profiles_of(turns, sampled(profiling.FEWEST_SAMPLES - 1))

    with pytest.raises(click.ClickException, match="one: 199 samples are too few"):
        await workloads.WORKLOADS["one"](profiles)

    assert not profiles.pictures.exists()


async def test_failed_sampler_is_quoted(turns: Turns) -> None:
    profiles = profiles_of(turns, "echo Permission denied; exit 1")

    with pytest.raises(click.ClickException, match=r"cannot sample process \d+:\nPermission"):
        await workloads.WORKLOADS["one"](profiles)


@pytest.mark.parametrize("workload", DRAWN)
def test_drawn_workload_has_a_load(workload: str) -> None:
    assert workload in workloads.WORKLOADS


@pytest.mark.parametrize("workload", PROFILED)
def test_committed_picture_is_small(workload: str) -> None:
    picture = profiling.FOLDER / f"{workload}.svg"

    assert picture.stat().st_size < 150_000
    assert f"performance/{workload}.svg" in (DOCS / "performance.md").read_text()
