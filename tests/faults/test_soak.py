"""Soak test: resource use stays flat after the warm-up under lasting mixed load."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.faults.figures import Figures
from tests.faults.load import EVERYTHING, Load, Plan
from tests.faults.scale import Scale
from tests.faults.site import MIB, Footprint, Site, fill, site
from tests.server.nginx import needs_cache
from tests.server.service import Catalog

pytestmark = pytest.mark.faults

CLIENTS = 32
PAUSE_SECONDS = 0.2
"""Pause of each client, so that the service is busy and not overloaded."""

WARM_UP = {"refresh": 1, "own_page": 2, "search": 1}
"""Many access tokens and searches, to fill the caches of both: with the mixed load alone they would
grow until the end of the run. Sent directly, because nginx would answer most of them."""

PRODUCTS = 2000
SAMPLE_SECONDS = 1.0

MAX_GROWTH = MIB
"""Memory growth of all processes of a role in ``PER_SECONDS``."""

PER_SECONDS = 600.0

SHORT_GROWTH = 48 * MIB
"""Of all processes of a role in the short run, which ends in the middle of the warm-up."""

MAX_DESCRIPTORS = {"supervisor": 5, "workers": 40, "nginx": 400}
MAX_TASKS = 100
"""Growth from the first to the last third; clients come and go meanwhile, and nginx keeps recently
requested pages open."""

MIN_SECONDS_FOR_A_TREND = 600.0


class Growing(AssertionError):
    """Unbounded growth of a process."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Resources in use at one moment.

    Attributes:
        at: seconds since the start.
        tasks: of all workers.
    """

    at: float
    footprints: dict[str, Footprint]
    tasks: float


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line through points, per unit of x."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def judge_growth(name: str, points: Sequence[tuple[float, float]]) -> float:
    """Return the growth of a process in bytes per ``PER_SECONDS``.

    Args:
        name: of the process.
        points: seconds and resident bytes, from the second part of a run.

    Raises:
        Growing: it exceeds ``MAX_GROWTH`` or, if the points cover a short time, the median of the
            last third exceeds that of the first by more than ``SHORT_GROWTH``.
    """
    third = len(points) // 3
    by = median([y for _, y in points[-third:]]) - median([y for _, y in points[:third]])
    seconds = points[-1][0] - points[0][0]
    growth = slope(points) * PER_SECONDS
    if by > SHORT_GROWTH or (seconds >= MIN_SECONDS_FOR_A_TREND and growth > MAX_GROWTH):
        raise Growing(f"{name}: {growth / MIB:.2f} MiB in {PER_SECONDS:.0f} s")
    return growth


def judge_level(name: str, values: Sequence[float], most: float) -> float:
    """Return the growth of the median of some counts from the first to the last third.

    Raises:
        Growing: it exceeds ``most``.
    """
    third = len(values) // 3
    by = median(values[-third:]) - median(values[:third])
    if by > most:
        raise Growing(f"{name}: {by} more")
    return by


async def watch(running: Site, seconds: float) -> list[Sample]:
    """Sample the resources at intervals."""
    began = time.monotonic()
    samples = []
    while (at := time.monotonic() - began) < seconds:
        tasks = (await running.numbers()).total("event_loop_tasks")
        samples.append(Sample(at, running.footprints(), tasks))
        await asyncio.sleep(SAMPLE_SECONDS)
    return samples


@needs_cache
class TestSoak:
    async def test_memory_descriptors_and_tasks_stay_flat(
        self, on_mariadb: Catalog, scale: Scale, figures: Figures
    ) -> None:
        async with site(on_mariadb) as running:
            await fill(running.service, running.token, PRODUCTS)
            async with Load.start(Plan(running.service.url, CLIENTS, WARM_UP)) as load:
                await load.reaches(scale.warm_up_requests, within=600)
                await load.stop()
            plan = Plan(running.nginx.url, CLIENTS, EVERYTHING, pause=PAUSE_SECONDS)
            async with Load.start(plan) as load:
                await load.reaches(100, within=60)
                samples = await watch(running, scale.soak_seconds)
                report = await load.stop()
            workers = running.service.all_workers

        second = [sample for sample in samples if sample.at >= scale.soak_seconds / 3]
        check = f"soak, {scale.soak_seconds} s, {CLIENTS} clients"
        figures.add(check, "requests", report.requests)
        figures.add(check, "failed requests", report.failures, limit="0")
        points = {
            name: [(s.at, float(s.footprints[name].resident)) for s in second]
            for name in ("supervisor", "workers", "nginx")
        }
        limit = "1 MiB" if scale.soak_seconds >= 2 * MIN_SECONDS_FOR_A_TREND else ""
        for name, resident in points.items():
            growth = slope(resident) * PER_SECONDS
            figures.add(check, f"{name}: growth in 600 s", growth / MIB, unit="MiB", limit=limit)
            figures.add(check, f"{name}: resident", resident[-1][1] / MIB, unit="MiB")
        for name, resident in points.items():
            judge_growth(name, resident)
            counts = [float(s.footprints[name].descriptors) for s in second]
            more = judge_level(f"descriptors of {name}", counts, MAX_DESCRIPTORS[name])
            figures.add(check, f"{name}: descriptors more", more, limit=str(MAX_DESCRIPTORS[name]))
        more = judge_level("tasks", [s.tasks for s in second], MAX_TASKS)
        figures.add(check, "tasks more", more, limit=str(MAX_TASKS))
        # At the end, because a busy machine may fail requests while the growth is still meaningful.
        assert report.failures == 0, "\n".join(report.samples)
        assert {each.split()[0] for each in report.outcomes} == set(EVERYTHING)
        assert len(workers) == 2
        assert running.service.text == ""
        assert not running.service.logged("event_loop_error")


@asynccontextmanager
async def leaking_process(code: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Python that leaks a little with each line on its standard input."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-c",
            f"import sys\nkept = []\nfor line in sys.stdin: {code}; print('x', flush=True)",
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def samples_of(process: asyncio.subprocess.Process, count: int) -> list[Footprint]:
    """Let a process leak ``count`` times, and sample it each time."""
    assert process.stdin is not None
    assert process.stdout is not None
    found = []
    for _ in range(count):
        process.stdin.write(b"\n")
        await process.stdout.readline()
        found.append(Footprint.of(process.pid))
    return found


class TestControls:
    """Negative controls of the check above."""

    async def test_memory_leak_is_detected(self) -> None:
        # The times are artificial: a sample a minute, 2 MiB more each time.
        async with leaking_process("kept.append(b'x' * 2 * 1024 * 1024)") as process:
            samples = await samples_of(process, 15)

        with pytest.raises(Growing):
            judge_growth("leaking", [(60.0 * n, s.resident) for n, s in enumerate(samples)])

    async def test_descriptor_leak_is_detected(self) -> None:
        async with leaking_process("kept.append(open('/dev/null'))") as process:
            samples = await samples_of(process, 100)

        with pytest.raises(Growing):
            judge_level("leaking", [s.descriptors for s in samples], 40)

    async def test_process_without_leaks_passes(self) -> None:
        async with leaking_process("b'x' * 2 * 1024 * 1024; open('/dev/null').close()") as process:
            samples = await samples_of(process, 30)

        points = [(60.0 * n, float(s.resident)) for n, s in enumerate(samples)][10:]
        assert judge_growth("sound", points) < MAX_GROWTH
        assert judge_level("sound", [s.descriptors for s in samples], 40) == 0

    def test_growth_is_detected_despite_noise(self) -> None:
        noisy = [(float(n), 80 * MIB + n * 2 * MIB / 600 + (n % 7) * MIB) for n in range(1200)]
        flat = [(float(n), 80 * MIB + (n % 7) * float(MIB)) for n in range(1200)]

        with pytest.raises(Growing):
            judge_growth("noisy", noisy)
        assert judge_growth("flat", flat) < MAX_GROWTH
