"""The benchmark's workloads, each for a moment, against the service."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest

from tests.db.support import on_servers
from tests.engines import Engine, connected
from tests.load import wrk
from tests.load.contestants import CATALOG, LOGGING, Contestant
from tests.load.measured import Measured
from tests.load.report import TITLES, Figures, Results, Turn
from tests.load.ring import copy_commit
from tests.load.workloads import APART, WORKLOADS, bulk, followers, resources, writes
from tests.load.workloads.turns import Turns

needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk is not there: the load that it makes is not tested"
)


@needs_wrk
@pytest.mark.parametrize(
    "workload", ["account", "changes", "search", "edit", "deep-mix", "mix", "one"]
)
async def test_every_request_of_a_workload_is_accepted(turns: Turns, workload: str) -> None:
    await WORKLOADS[workload](turns)

    assert turns.results.turns
    for turn in turns.results.turns:
        assert turn.measured is not None, turn.workload
        assert turn.measured.requests > 0, turn.workload
        assert (turn.measured.refused, turn.measured.failed) == (0, 0), turn.workload


@needs_wrk
@pytest.mark.parametrize("connections", [2, 600])
async def test_each_edit_carries_the_tag_of_the_answer_before(
    turns: Turns, site: Contestant, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "LEAST_EDITED", 4)
    ids = writes._make(site, turns.token(site), 2 * connections)
    edits = writes.Edits(ids, turns.token(site))
    before = site.position()

    result = await edits.put_on(site, connections=connections, seconds=1, folder=turns.folder)

    assert (result.refused, result.failed) == (0, 0)
    # Each was a change.
    assert site.position() - before >= result.requests > 0


@needs_wrk
async def test_turn_is_repeated_with_more_products_if_all_are_deleted(
    turns: Turns, site: Contestant
) -> None:
    token = turns.token(site)
    deletes = writes.Deletes(site, token, token, per_second=4)
    turn: dict[str, Any] = {"connections": 2, "seconds": 1, "folder": turns.folder}

    naive = await writes.Prepared.put_on(deletes, site, **turn)
    deletes.per_second = 20
    measured = await deletes.put_on(site, **turn)

    # Negative control: products that are gone are answered 404.
    assert naive.requests - naive.refused == 4
    assert (measured.refused, measured.failed) == (0, 0)
    assert deletes.per_second > measured.requests > 0


@needs_wrk
async def test_edit_with_an_old_tag_is_refused(turns: Turns, site: Contestant) -> None:
    ids = writes._make(site, turns.token(site), 4)
    tags = dict.fromkeys(ids, '"old"')
    script = wrk.edit(tags, turns.token(site), turns.folder / "tags", threads=1)

    result = await script.put_on(site, connections=2, seconds=1, folder=turns.folder)

    assert result.refused == result.requests > 0


async def test_each_follower_gets_each_event(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "FOLLOWERS", 5)
    monkeypatch.setattr(followers, "CREATES", 3)

    await WORKLOADS["sse"](turns)

    (figures,) = turns.results.figures
    assert figures.values["events"] == 15
    assert 0 < figures.values["p50 ms"] <= figures.values["max ms"]


async def test_transfers_move_all_products(turns: Turns, site: Contestant) -> None:
    before = bulk._export(site)

    await WORKLOADS["import"](turns)
    await WORKLOADS["export"](turns)

    assert bulk._export(site) - before == 1000
    assert [each.workload for each in turns.results.figures] == ["import", "export"]
    assert all(each.values["rows/s"] > 0 for each in turns.results.figures)


async def test_memory_is_that_of_workers_and_connections(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "HELD", 50)

    await WORKLOADS["memory"](turns)

    (figures,) = turns.results.figures
    # A worker has the interpreter and all packages; both share them, so together they have less.
    assert 20 < figures.values["MB a worker"] < 500
    assert figures.values["MB of all processes"] < 4 * figures.values["MB a worker"]
    assert figures.values["kB a connection"] < 1000


@on_servers
async def test_statements_of_the_server_are_counted(engine: Engine, tmp_path: Path) -> None:
    url = await engine.create_database(tmp_path)
    before = await resources._statements(url)
    async with connected(url) as cursor:
        for _ in range(5):
            await cursor.execute("SELECT 1")

    assert await resources._statements(url) - before >= 5
    await engine.drop_database(url)


class TestFarBehind:
    @pytest.mark.parametrize(
        ("rates", "slow"),
        [
            ({"litestar": 100, "flask": 49}, {"flask"}),
            ({"litestar": 100, "flask": 50}, set()),
            # Others are no measure for those in Python.
            ({"go": 1000, "node": 10, "litestar": 100, CATALOG: 5000}, set()),
            ({"litestar": 100, "flask": None}, {"flask"}),
            ({}, set()),
        ],
    )
    def test_slow_python_peers_are_found(
        self, turns: Turns, rates: dict[str, int | None], slow: set[str]
    ) -> None:
        turns.results.turns += [
            Turn("hot", 64, 1, name, None if rate is None else measured(rate))
            for name, rate in rates.items()
        ]
        turns.results.turns.append(Turn("hot", 512, 1, "litestar", measured(100_000)))

        assert turns.far_behind("hot") == slow
        assert turns.far_behind("random") == set()

    @needs_wrk
    async def test_slow_peers_sit_out_with_more_connections(
        self, turns: Turns, site: Contestant
    ) -> None:
        names = ("litestar", "flask")
        contestants = {name: replace(site, name=name) for name in names}
        traffic = {"litestar": Prepared(100), "flask": Prepared(10)}
        pair = Turns(
            replace(turns.options, connections=()), contestants, turns.results, turns.folder
        )

        await pair.rates("hot", names, lambda each: traffic[each.name], usual=(512, 64))

        told = [(each.name, each.connections) for each in turns.results.turns]
        assert sorted(told) == [("flask", 64), ("litestar", 64), ("litestar", 512)]


class TestLead:
    @needs_wrk
    async def test_load_before_each_turn_is_not_measured(
        self, turns: Turns, site: Contestant
    ) -> None:
        put_on: list[tuple[int, int]] = []

        @dataclass(frozen=True)
        class Noted(Prepared):
            async def put_on(
                self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
            ) -> Measured:
                put_on.append((connections, seconds))
                return await super().put_on(
                    contestant, connections=connections, seconds=seconds, folder=folder
                )

        alone = Turns(turns.options, {site.name: site}, turns.results, turns.folder)
        await alone.rates("deep-mix", (site.name,), lambda _: Noted(10), lead_seconds=7)

        assert [seconds for _, seconds in put_on] == [1, 7, turns.options.seconds]
        assert len({connections for connections, _ in put_on[1:]}) == 1
        assert len(turns.results.turns) == 1


class TestUnprepared:
    async def test_contestant_without_traffic_is_left_out(
        self, turns: Turns, site: Contestant
    ) -> None:
        def traffic_for(contestant: Contestant) -> Prepared:
            if contestant.name == "flask":
                raise ConnectionError
            return Prepared(10)

        contestants = {name: replace(site, name=name) for name in ("flask", "litestar")}
        pair = Turns(turns.options, contestants, turns.results, turns.folder)

        await pair.rates("random", ("flask", "litestar"), traffic_for)

        assert [each.name for each in turns.results.turns] == ["litestar"]


@dataclass(frozen=True)
class Prepared:
    """Traffic with a known outcome."""

    rate: int
    path: str = "/"

    async def put_on(
        self,
        contestant: Contestant,  # noqa: ARG002 (all these are a protocol's)
        *,
        connections: int,  # noqa: ARG002
        seconds: int,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
    ) -> Measured:
        return measured(self.rate)


def measured(rate: int) -> Measured:
    """Return the result of one second."""
    return Measured(rate, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0, 0)


class TestReport:
    def test_python_peers_have_a_ratio_of_their_own(self) -> None:
        rates = {CATALOG: 100, "go": 200, "litestar": 50}
        turns = [Turn("one", 64, 1, name, measured(rate)) for name, rate in rates.items()]

        report = Results([], dict.fromkeys(rates, "server"), turns).markdown()

        assert "| to best peer | to best Python peer |" in report
        assert "| 64 | server | 100 | 0.50 | 2.00 |" in report

    def test_figures_are_medians_over_rounds(self) -> None:
        rounds = [Figures("sse", CATALOG, {"p50 ms": value}) for value in (1.0, 30.0, 2.0)]

        report = Results([], {CATALOG: "the service"}, figures=rounds).markdown()

        assert "| server | p50 ms |" in report
        assert "| the service | 2.00 |" in report

    def test_access_log_is_compared_with_none(self) -> None:
        def turn(name: str, requests: int) -> Turn:
            return Turn("log", 64, 1, name, measured(requests))

        titles = {CATALOG: "the service", LOGGING: "with its log"}
        report = Results([], titles, [turn(CATALOG, 100), turn(LOGGING, 90)]).markdown()

        assert "| 64 | with its log | 90 | 0.90 |" in report

    @pytest.mark.parametrize("workload", [*WORKLOADS, *APART])
    def test_workload_is_documented(self, workload: str) -> None:
        guide = Path(__file__).parents[2] / "docs" / "performance.md"

        assert f"| `{workload}` |" in guide.read_text()

    def test_every_rate_has_a_title(self) -> None:
        parts = {"account": {"my", "me", "refresh"}, "edit": {"edit", "delete"}}
        tables = {table for name in WORKLOADS for table in parts.get(name, {name})}

        assert tables | {*APART} == {*TITLES}


class TestAgainst:
    def test_commit_is_copied_with_its_package(self, tmp_path: Path) -> None:
        copy_commit("HEAD", tmp_path / "copy")

        assert (tmp_path / "copy" / "catalog" / "app.py").exists()

    def test_unknown_commit_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(click.ClickException, match="no-such-commit"):
            copy_commit("no-such-commit", tmp_path / "copy")
