"""Turns of servers under load, in alternation: what all workloads have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tests.load.contestants import (
    BEHIND_NGINX,
    CATALOG,
    EARLIER,
    EARLIER_BEHIND_NGINX,
    Contestant,
)
from tests.load.measured import Measured, Traffic
from tests.load.report import Figures, Results, Turn
from tests.load.stacks import PEERS, PYTHON_PEERS
from tests.load.wrk import Script

PEAK_CONNECTIONS = 64

FEWEST = (PEAK_CONNECTIONS,)
"""Default numbers of connections of the simplest workloads."""

FEW = (*FEWEST, 512)
"""Default numbers of connections of most workloads."""

MANY = (*FEW, 5000)
"""Default numbers of connections of workloads that show the effect of many clients."""

MOST_CONNECTIONS = 10_000

FAR_BEHIND = 2
"""Python peers that are so many times slower than the best one sit out with more connections."""


@dataclass(frozen=True)
class Options:
    """Settings of a measurement.

    Attributes:
        connections: numbers of them; empty for those usual with each workload.
        peers: by name.
        against: another commit of the service, if any.
    """

    products: int
    rounds: int
    seconds: int
    connections: tuple[int, ...]
    workloads: tuple[str, ...]
    peers: tuple[str, ...]
    against: str | None = None


class Turns:
    """Turns of contestants on workloads.

    Args:
        options: settings of the measurement.
        contestants: by name, in the order of their turns.
        results: where to record measurements.
        folder: for scripts.
    """

    def __init__(
        self,
        options: Options,
        contestants: Mapping[str, Contestant],
        results: Results,
        folder: Path,
    ) -> None:
        self.options = options
        self.contestants = contestants
        self.results = results
        self.folder = folder
        self.scripts: dict[str, Script] = {}
        self._tokens: dict[str, str] = {}

    def present(self, *names: str) -> list[str]:
        """Return those of the names whose server runs."""
        return [name for name in names if name in self.contestants]

    @property
    def services(self) -> list[str]:
        """The service, and another commit of it if there is one."""
        return self.present(CATALOG, EARLIER)

    @property
    def direct(self) -> list[str]:
        """The services and all peers."""
        return self.present(CATALOG, EARLIER, *self.options.peers)

    @property
    def editing(self) -> list[str]:
        """The services and the peers that read and change single products."""
        return [name for name in self.direct if name not in PEERS or PEERS[name].edits]

    @property
    def with_accounts(self) -> list[str]:
        """The services and the peers that have the caller's own things, and the changes."""
        return [name for name in self.direct if name not in PEERS or PEERS[name].has_accounts]

    @property
    def behind_nginx(self) -> list[str]:
        """The services behind nginx, if it is there, and all peers."""
        if BEHIND_NGINX not in self.contestants:
            return self.direct
        return self.present(BEHIND_NGINX, EARLIER_BEHIND_NGINX, *self.options.peers)

    def service_of(self, contestant: Contestant) -> Contestant:
        """Return the service on the contestant's database."""
        name = EARLIER if contestant.name in {EARLIER, EARLIER_BEHIND_NGINX} else CATALOG
        return self.contestants[name]

    def token(self, contestant: Contestant) -> str:
        """Return a token of the first sample account."""
        if contestant.name not in self._tokens:
            self._tokens[contestant.name] = contestant.token()
        return self._tokens[contestant.name]

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
        """Let contestants take turns, with few and with many connections.

        Args:
            workload: name of the table.
            names: of the contestants.
            traffic_for: returns what each is asked for.
            usual: default numbers of connections.
            most: maximum that the workload makes sense with.
            lead_seconds: duration of the same load before each turn, which is not measured, for
                workloads whose steady state is reached only after seconds.
        """
        contestants: list[Contestant] = []
        traffic: dict[str, Traffic] = {}
        for each in (self.contestants[name] for name in names):
            try:
                traffic[each.name] = traffic_for(each)
            except (click.ClickException, OSError) as error:
                say(f"{workload}: without {each.title}: {error!r}")
                continue
            contestants.append(each)
            await self.warm_up(each, traffic[each.name])
        if not contestants:
            return
        levels = sorted(each for each in self.options.connections or usual if each <= most)
        for connections in levels:
            if connections > levels[0]:
                slow = self.far_behind(workload)
                contestants = [each for each in contestants if each.name not in slow]
            for number in range(1, self.options.rounds + 1):
                # Rotate the order, so that after-effects of a turn do not always hit the same one.
                first = number % len(contestants)
                for each in (*contestants[first:], *contestants[:first]):
                    if lead_seconds:
                        await self.flood(
                            each, traffic[each.name], connections, seconds=lead_seconds
                        )
                    measured = await self.turn(each, traffic[each.name], connections)
                    self.results.turns.append(
                        Turn(workload, connections, number, each.name, measured)
                    )
                    tell(f"{workload}, {connections:,}, round {number}", each, measured)

    def far_behind(self, workload: str) -> set[str]:
        """Return the Python peers far behind the best one, with a workload's fewest connections."""
        turns = [each for each in self.results.turns if each.workload == workload]
        fewest = min((each.connections for each in turns), default=0)
        rates: dict[str, float] = {}
        for each in turns:
            if each.connections == fewest and each.name in PYTHON_PEERS:
                rate = each.measured.rate if each.measured else 0.0
                rates[each.name] = max(rate, rates.get(each.name, 0.0))
        best = max(rates.values(), default=0.0)
        return {name for name, rate in rates.items() if FAR_BEHIND * rate < best}

    def record(self, workload: str, contestant: Contestant, values: Mapping[str, float]) -> None:
        """Record and print figures that are not those of a load generator."""
        self.results.figures.append(Figures(workload, contestant.name, values))
        figures = ", ".join(f"{name} {value:,.1f}" for name, value in values.items())
        say(f"{workload}: {contestant.title}: {figures}")

    async def warm_up(self, contestant: Contestant, traffic: Traffic) -> None:
        """Let a contestant open its database connections and do its one-time initialization."""
        await self.turn(contestant, traffic, PEAK_CONNECTIONS, seconds=1)

    async def turn(
        self, contestant: Contestant, traffic: Traffic, connections: int, *, seconds: int = 0
    ) -> Measured | None:
        """Measure a contestant under load and wait until it is idle; None if it failed."""
        measured = await self.flood(contestant, traffic, connections, seconds=seconds)
        await contestant.quiet()
        return measured

    async def flood(
        self, contestant: Contestant, traffic: Traffic, connections: int, *, seconds: int = 0
    ) -> Measured | None:
        """Measure a contestant under load, without waiting until it is idle; None if it failed."""
        try:
            return await traffic.put_on(
                contestant,
                connections=connections,
                seconds=seconds or self.options.seconds,
                folder=self.folder,
            )
        except (click.ClickException, OSError) as error:
            say(f"{contestant.title}: {error}")
            return None


def tell(turn: str, contestant: Contestant, measured: Measured | None) -> None:
    """Print the result of a turn."""
    if measured:
        rate = f"{measured.rate:,.0f}/s, p99 {measured.p99:,.0f} ms"
        say(f"{turn}: {contestant.title}: {rate}")


def say(text: str) -> None:
    """Print progress, apart from the report."""
    click.echo(text, err=True)
