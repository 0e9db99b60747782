"""Report of a benchmark: tables in Markdown and a chart."""

import json
import statistics
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.load.contestants import CATALOG, COUNTERPARTS, EARLIER, FILE
from tests.load.measured import Measured
from tests.load.stacks import PEERS, PYTHON_PEERS
from tests.load.wrk import TIMEOUT_SECONDS

T = TypeVar("T")

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

LEGEND = f"""\
Requests/s counts answers with 2xx. "To the other commit", "to best peer", "to best Python peer" and
"to file" are ratios within a round: to another commit of the service, to the best of all peers, to
the best of those in Python, and to nginx with the page as a file. Python peers with less than half
of the best one's rate at the fewest connections sit out with more. CPU is per answer: of the
server's processes, and of the whole machine, which is with the database and without the clients.
Times are of the answers that came within a turn: with 5,000 connections and 500 answers a second,
ten seconds pass before each has had one. Failed are connections that were refused or broke, and
answers that took more than {TIMEOUT_SECONDS} s."""

TITLES = {
    "hot": "The first page",
    "log": "The first page, with and without the access log",
    "random": "Random pages",
    "logins": "Log-ins beside reads",
    "my": "One's own products",
    "me": "One's own account",
    "refresh": "Refreshed access tokens",
    "overload": "Ten times as many clients",
    "one": "One product at random",
    "changes": "20 changes after a random position",
    "search": "Searches for one and two words",
    "create": "Creates",
    "edit": "Changes of the price of random products",
    "delete": "Deletes",
    "mix": "95 % first page, 5 % creates",
    "deep-mix": "95 % random pages, 5 % creates",
    "tls": "The first page over TLS, ten at a time (HTTP/2)",
    "import": "Import as NDJSON",
    "export": "Export as NDJSON",
    "sse": "From a create to its event, 1,000 followers",
    "memory": "Memory",
    "idle": "Queries of idle processes",
    "size": "Few and many products",
}
"""Titles of the tables, by workload or by part of one."""


@dataclass(frozen=True)
class Turn:
    """Result of one contestant under one load; None if the measurement failed."""

    workload: str
    connections: int
    round: int
    name: str
    measured: Measured | None


@dataclass(frozen=True)
class LogIns:
    """Log-ins concurrent with reads in one turn; times in milliseconds."""

    name: str
    rate: float
    p50: float
    p99: float
    calm_p99: float
    list_p50: float
    list_p99: float
    failed: int


@dataclass(frozen=True)
class Overload:
    """One turn under overload.

    Attributes:
        obedient: whether clients heeded ``Retry-After``.
        peak: answers per second with few clients, just before.
        measured: with many clients.
        recovery: seconds until the server answered normally again; None if it did not in time.
    """

    name: str
    obedient: bool
    peak: float
    measured: Measured
    recovery: float | None


@dataclass(frozen=True)
class Figures:
    """Figures of a contestant that no load generator measured: medians of a round, by title."""

    workload: str
    name: str
    values: Mapping[str, float]


@dataclass
class Results:
    """All results of a benchmark.

    Attributes:
        facts: environment and method, one per line.
        titles: names of contestants, in the order of the tables.
    """

    facts: list[str]
    titles: dict[str, str]
    turns: list[Turn] = field(default_factory=list)
    log_ins: list[LogIns] = field(default_factory=list)
    overloads: list[Overload] = field(default_factory=list)
    sizes: list[tuple[int, Turn]] = field(default_factory=list)
    figures: list[Figures] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the facts and the tables."""
        parts = ["\n".join(f"- {fact}" for fact in self.facts), LEGEND]
        for workload, title in TITLES.items():
            table = {
                "logins": self._log_in_table,
                "overload": self._overload_table,
                "size": self._size_table,
            }.get(workload, lambda workload=workload: self._table_of(workload))()
            if table:
                parts.append(f"### {title}\n\n{table}")
        return "\n\n".join(parts) + "\n"

    def _table_of(self, workload: str) -> str:
        return self._figure_table(workload) or self._rate_table(workload)

    def _figure_table(self, workload: str) -> str:
        figures = [each for each in self.figures if each.workload == workload]
        columns = list(dict.fromkeys(column for each in figures for column in each.values))
        rows = []
        for name in dict.fromkeys(each.name for each in figures):
            own = [each.values for each in figures if each.name == name]
            cells = [_figure([each[title] for each in own if title in each]) for title in columns]
            rows.append([self.titles.get(name, name), *cells])
        return _table(["server", *columns], rows)

    def _rate_table(self, workload: str) -> str:
        turns = [turn for turn in self.turns if turn.workload == workload]
        rivals: dict[str, Collection[str]] = {
            "to the other commit": COUNTERPARTS.values(),
            "to best peer": PEERS.keys(),
            "to best Python peer": PYTHON_PEERS,
            "to file": {FILE},
            "to without log": {CATALOG} if workload == "log" else set(),
        }
        names = {turn.name for turn in turns}
        rivals = {title: others for title, others in rivals.items() if names & {*others}}
        head = ["connections", "server", "requests/s", *rivals]
        head += ["CPU µs", "machine µs", "p50 ms", "p99 ms", "not 2xx", "failed"]
        rows = []
        for connections in sorted({turn.connections for turn in turns}):
            for name in self.titles:
                own = [
                    each for each in turns if (each.connections, each.name) == (connections, name)
                ]
                if own:
                    cells = self._cells(own, turns, rivals.values())
                    rows.append([f"{connections:,}", self.titles[name], *cells])
        return _table(head, rows)

    def _cells(
        self, own: list[Turn], turns: list[Turn], rivals: Collection[Collection[str]]
    ) -> list[str]:
        measured = [turn.measured for turn in own if turn.measured]
        if not measured:
            return ["could not be measured"]
        if not any(each.requests for each in measured):
            failed = sum(each.failed for each in measured)
            return ["0", *[""] * (len(rivals) + 4), "0", f"{failed:,}"]
        name = own[0].name
        ratios = [
            # Compare releases like with like: direct, or through nginx.
            _ratio(own, turns, {COUNTERPARTS.get(name, "")} if EARLIER in others else others)
            for others in rivals
        ]
        return [
            f"{_median(measured, lambda each: each.rate):,.0f}",
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            f"{_median(measured, lambda each: each.cpu_us):,.0f}",
            f"{_median(measured, lambda each: each.machine_us):,.0f}",
            f"{_median(measured, lambda each: each.p50):,.1f}",
            f"{_median(measured, lambda each: each.p99):,.1f}",
            f"{sum(each.refused for each in measured):,}",
            f"{sum(each.failed for each in measured):,}",
        ]

    def _log_in_table(self) -> str:
        head = ["server", "log-ins/s", "p50 ms", "p99 ms"]
        head += ["list p99 ms alone", "list p50 ms beside", "list p99 ms beside", "failed"]
        rows = []
        for name, title in self.titles.items():
            own = [each for each in self.log_ins if each.name == name]
            if own:
                columns: list[Callable[[LogIns], float]] = [
                    lambda each: each.rate,
                    lambda each: each.p50,
                    lambda each: each.p99,
                    lambda each: each.calm_p99,
                    lambda each: each.list_p50,
                    lambda each: each.list_p99,
                ]
                cells = [f"{_median(own, column):,.1f}" for column in columns]
                rows.append([title, *cells, str(sum(each.failed for each in own))])
        return _table(head, rows)

    def _overload_table(self) -> str:
        head = ["server", "clients", "peak/s", "answers/s ÷ peak", "p99 ms of them, at most"]
        head += ["refused", "failed", "normal after s"]
        rows = []
        for name, title in self.titles.items():
            for obedient in (True, False):
                own = [
                    each
                    for each in self.overloads
                    if (each.name, each.obedient) == (name, obedient)
                ]
                if own:
                    rows.append(
                        [
                            title,
                            "honour Retry-After" if obedient else "ignore Retry-After",
                            *_overloaded(own),
                        ]
                    )
        return _table(head, rows)

    def _size_table(self) -> str:
        sizes = sorted({products for products, _ in self.sizes})
        head = ["pages", *(f"requests/s of {products:,}" for products in sizes), "ratio"]
        rows = []
        for workload in ("hot", "random"):
            rates = {
                products: [
                    turn.measured.rate
                    for size, turn in self.sizes
                    if size == products and turn.workload == workload and turn.measured
                ]
                for products in sizes
            }
            if sizes and all(rates.values()):
                pairs = zip(rates[sizes[0]], rates[sizes[-1]], strict=False)
                ratio = statistics.median(small / large for small, large in pairs)
                medians = [f"{statistics.median(rates[products]):,.0f}" for products in sizes]
                rows.append([TITLES[workload].lower(), *medians, f"{ratio:.2f}"])
        return _table(head, rows)

    def write(self, peers_python: str) -> None:
        """Write the tables between the markers of docs/performance.md, and the chart beside it."""
        file = DOCS / "performance.md"
        text = file.read_text() if file.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
        if BEGIN not in text or END not in text:
            text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END)[2]
        picture = ""
        panels = self._panels()
        if panels:
            picture = "![Requests/s as multiples of the best peer's](performance.png)\n\n"
            command = [peers_python, "-m", "tests.load.plot", str(DOCS / "performance.png")]
            subprocess.run(command, input=json.dumps(panels), text=True, check=True)
        file.write_text(f"{before}{BEGIN}\n\n{picture}{self.markdown()}\n{END}{after}")

    def _panels(self) -> list[dict[str, object]]:
        """Return the chart's panels: of each workload, the fewest connections."""
        panels: list[dict[str, object]] = []
        for workload in TITLES:
            turns = [turn for turn in self.turns if turn.workload == workload]
            connections = min((turn.connections for turn in turns), default=0)
            turns = [turn for turn in turns if turn.connections == connections]
            bars = []
            for name, title in self.titles.items():
                ratio = _ratio([turn for turn in turns if turn.name == name], turns, PEERS)
                if ratio:
                    bars.append({"name": name, "title": title, "ratio": ratio})
            if bars:
                title = f"{TITLES[workload]}, {connections:,} connections"
                panels.append({"title": title, "bars": bars})
        return panels


def _ratio(own: list[Turn], turns: list[Turn], others: Collection[str]) -> float | None:
    """Return the median over rounds of the ratio to the best of the others."""
    ratios = []
    for turn in own:
        best = max(
            (
                each.measured.rate
                for each in turns
                if (each.connections, each.round) == (turn.connections, turn.round)
                and each.name in others
                and each.measured
            ),
            default=0,
        )
        if turn.measured and best:
            ratios.append(turn.measured.rate / best)
    return statistics.median(ratios) if ratios else None


def _overloaded(own: list[Overload]) -> list[str]:
    refused = sum(each.measured.refused for each in own)
    requests = sum(each.measured.requests for each in own)
    recoveries = [each.recovery for each in own]
    slowest = max((each for each in recoveries if each is not None), default=None)
    return [
        f"{_median(own, lambda each: each.peak):,.0f}",
        f"{_median(own, lambda each: each.measured.rate / each.peak):.2f}",
        f"{_median(own, lambda each: each.measured.accepted_p99):,.0f}",
        f"{refused / max(requests, 1):.0%}",
        f"{sum(each.measured.failed for each in own):,}",
        "never" if None in recoveries else f"{slowest:.1f}",
    ]


def _figure(values: Sequence[float]) -> str:
    if not values:
        return ""
    value = statistics.median(values)
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def _median(values: Sequence[T], of: Callable[[T], float]) -> float:
    return statistics.median(map(of, values))


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown; empty without rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
