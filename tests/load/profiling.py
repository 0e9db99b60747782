"""Profiles of a worker under the benchmark's workloads: ``./build.sh bench --profile``.

py-spy reads the worker's memory from outside, so that the worker runs as it always does but for
short pauses. A loop that waits looks busy when it is paused: by the worker's CPU time, the loop's
own samples are reduced to those in which it ran. Needs the right to trace
processes: that of root, or ``kernel.yama.ptrace_scope=0``.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from tests.load.clients import output_of
from tests.load.contestants import CATALOG, Contestant
from tests.load.flame_graph import flame_graph, tree_of
from tests.load.measured import Traffic
from tests.load.processes import cpu_seconds, with_descendants
from tests.load.report import DOCS, TITLES, Results
from tests.load.workloads import WORKLOADS
from tests.load.workloads.turns import MANY, MOST_CONNECTIONS, PEAK_CONNECTIONS, Options, Turns, say
from tests.load.workloads.writes import Prepared

PROFILED = ("hot", "random", "one", "search", "create", "edit", "mix")
"""Workloads that are profiled by default."""

DRAWN = (*PROFILED, "changes", "account", "deep-mix")
"""Workloads that can be profiled: those with a load generator."""

_LIKE_OTHERS = {"delete"}
"""Tables of these workloads that are not drawn: as edits."""

FOLDER = DOCS / "performance"
LEAST_SECONDS = 10
SAMPLES_PER_SECOND = 500
FEWEST_SAMPLES = 200


async def profile(
    options: Options, contestants: Mapping[str, Contestant], peers_python: str, folder: Path
) -> None:
    """Write a flame graph for each workload.

    Args:
        options: settings; of the numbers of connections, the first.
        contestants: the service, and nginx in front if it is there.
        peers_python: the interpreter beside which py-spy is installed.
        folder: for scripts and samples.

    Raises:
        click.ClickException: the worker could not be sampled.
    """
    sampler = Path(peers_python).parent / "py-spy"
    turns = Profiles(options, contestants, folder, str(sampler))
    for name in options.workloads:
        await WORKLOADS[name](turns)


class Profiles(Turns):
    """Turns of the service alone, each sampled and drawn."""

    def __init__(
        self, options: Options, contestants: Mapping[str, Contestant], folder: Path, sampler: str
    ) -> None:
        super().__init__(options, contestants, Results([], {}), folder)
        self._sampler = sampler
        self.pictures = FOLDER

    async def rates(
        self,
        workload: str,
        names: Sequence[str],
        traffic_for: Callable[[Contestant], Traffic],
        *,
        usual: Sequence[int] = MANY,
        most: int = MOST_CONNECTIONS,
        lead_seconds: int = 0,
    ) -> None:
        """Sample a worker during one turn, of the service itself if it is one of the names.

        Raises:
            click.ClickException: there were too few samples.
        """
        del usual, most, lead_seconds
        if workload in _LIKE_OTHERS:
            return
        asked = self.contestants[CATALOG if CATALOG in names else names[0]]
        traffic = traffic_for(asked)
        connections = (self.options.connections or (PEAK_CONNECTIONS,))[0]
        seconds = max(self.options.seconds, LEAST_SECONDS)
        worker = await self._busiest(asked, traffic)
        if isinstance(traffic, Prepared):
            traffic = await traffic.script(
                asked, connections=connections, seconds=seconds, folder=self.folder
            )
        say(f"{workload}: sampling process {worker} for {seconds} s")
        used = cpu_seconds(worker)
        load = asyncio.create_task(self.flood(asked, traffic, connections, seconds=seconds + 1))
        try:
            stacks = await self._sample(worker, seconds)
            used = cpu_seconds(worker) - used
            measured = await load
        finally:
            load.cancel()
            await asyncio.wait([load])
        await asked.quiet()
        root = tree_of(stacks)
        root.drop_own(root.samples - round(used * SAMPLES_PER_SECOND))
        if measured is None or root.samples < FEWEST_SAMPLES:
            raise click.ClickException(f"{workload}: {root.samples} samples are too few.")
        way = "directly" if asked.name == CATALOG else "through nginx"
        share = f"a worker at {used / seconds:.0%} of a core"
        title = f"{TITLES[workload]}, {way}: {share}, {root.samples:,} samples"
        self.pictures.mkdir(exist_ok=True)
        file = self.pictures / f"{workload}.svg"
        file.write_text(flame_graph(title, root))
        say(f"{workload}: {measured.rate:,.0f}/s; {file}")

    async def _busiest(self, contestant: Contestant, traffic: Traffic) -> int:
        """Return the process of the service that works most while it is warmed up."""
        (supervisor,) = self.contestants[CATALOG].pids
        before = {pid: cpu_seconds(pid) for pid in with_descendants(supervisor)}
        await self.warm_up(contestant, traffic)
        del before[supervisor]
        return max(before, key=lambda pid: cpu_seconds(pid) - before[pid])

    async def _sample(self, pid: int, seconds: int) -> str:
        """Return the stacks of a process; see ``tree_of``."""
        file = self.folder / "stacks"
        file.unlink(missing_ok=True)
        output = await output_of(
            *(self._sampler, "record", "--pid", str(pid), "--duration", str(seconds)),
            *(
                "--threads",
                "--rate",
                str(SAMPLES_PER_SECOND),
                "--format",
                "raw",
                "--output",
                str(file),
            ),
        )
        if not file.exists():
            raise click.ClickException(f"py-spy cannot sample process {pid}:\n{output}")
        return file.read_text()
