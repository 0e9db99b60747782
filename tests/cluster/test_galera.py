"""The service on three MariaDB Galera nodes that are killed, stopped and written to concurrently.

Excluded from the usual run: ``./build.sh test -m cluster -s``. The measurements are printed;
docs/scaling.md quotes them.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from catalog.db.database import Database
from catalog.db.deadlines import Deadlines
from catalog.errors import DatabaseUnavailable
from tests.cluster.galera import Cluster, galera, missing
from tests.cluster.load import Load, Seen, Verdict, judge
from tests.db.support import run_on
from tests.engines import settings_for
from tests.server.service import Catalog, Service

WRITERS = int(os.environ.get("CATALOG_TEST_WRITERS", "24"))
CREATES = 1000
MAX_PAUSE_SECONDS = 8.0
CUTS = 5

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing()), reason=f"there is no {', '.join(missing())}"),
]


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with galera(tmp_path_factory.mktemp("galera") / "c") as cluster:
        yield cluster


@pytest.fixture
async def cluster(running: Cluster) -> Cluster:
    """Return the cluster with all three nodes up; one of them takes the writes."""
    await running.complete()
    return running


@pytest.fixture
async def database(cluster: Cluster) -> str:
    """Create an empty database; returns its name."""
    return await cluster.create_database()


@pytest.fixture
async def service(cluster: Cluster, database: str, tmp_path: Path) -> AsyncIterator[Service]:
    """Run the service with two workers, connected through the proxy."""
    url = cluster.url(database)
    catalog = Catalog(tmp_path)
    catalog.keep_deadlines()
    async with catalog.start("--workers=2", DATABASE_URL=url) as service:
        yield await service.serving()


def report(title: str, seen: Seen, verdict: Verdict, **more: Any) -> None:
    """Print the measurements."""
    figures = {
        "acknowledged": len(seen.acknowledged),
        "per_second": round(seen.rate),
        "pause": round(seen.pause, 2),
        "slowest": round(seen.slow, 2),
        "answers": dict(sorted(seen.answers.items())),
        "replayed": seen.replayed,
        "reads": seen.reads,
        "stale": len(seen.stale),
        "followed": len(seen.followed),
        "started_over": seen.gone,
        "lost": len(verdict.lost),
        "doubled": len(verdict.doubled),
        "gaps": len(verdict.gaps),
        "apart": verdict.apart,
        **more,
    }
    sys.stderr.write(f"\n{title}: {json.dumps(figures)}\n")


def assert_kept(seen: Seen, verdict: Verdict) -> None:
    """Check the guarantees that hold under every fault."""
    assert verdict == Verdict(lost=[], doubled=[], gaps=[], apart=[])
    assert seen.stale == []
    assert seen.gone == 0
    assert not {"500", "read 500"} & seen.answers.keys()
    assert seen.pause <= MAX_PAUSE_SECONDS


@asynccontextmanager
async def started_at_each_node(
    cluster: Cluster, database: str, folder: Path
) -> AsyncIterator[list[Service]]:
    """Run one instance per node; all migrate and create the administrator concurrently."""
    async with AsyncExitStack() as stack:
        started = []
        for node in cluster.nodes:
            url = cluster.url(database, node)
            catalog = Catalog(folder)
            catalog.keep_deadlines()
            starting = catalog.start(DATABASE_URL=url)
            started.append(await stack.enter_async_context(starting))
        yield [await service.serving() for service in started]


class TestOneWriter:
    @pytest.mark.parametrize(
        ("how", "number"), [("killed", signal.SIGKILL), ("stopped", signal.SIGTERM)]
    )
    async def test_loss_of_the_writer_node_costs_only_a_pause(
        self, cluster: Cluster, service: Service, database: str, how: str, number: signal.Signals
    ) -> None:
        load = Load([service], await service.sign_up(), writers=WRITERS)

        async with load.running() as seen:
            await load.more(CREATES)
            node = await cluster.writer()
            await node.end(number)
            await load.more(CREATES)
            successor = await cluster.writer()
            await cluster.complete()
            await load.more(CREATES)
            writer = await cluster.writer()

        verdict = await judge(cluster, database, seen)
        report(how, seen, verdict, rejoined_by=node.caught_up_by)
        assert_kept(seen, verdict)
        # The node that returns does not become the writer again, which would cost another pause.
        assert node is not successor is writer

    async def test_hanging_writer_node_is_replaced_and_may_rejoin(
        self, cluster: Cluster, service: Service, database: str
    ) -> None:
        load = Load([service], await service.sign_up(), writers=WRITERS)

        async with load.running() as seen:
            await load.more(CREATES)
            node = await cluster.writer()
            node.send_signal(signal.SIGSTOP)
            await load.more(CREATES)
            node.send_signal(signal.SIGCONT)
            await cluster.complete()
            await load.more(CREATES)

        verdict = await judge(cluster, database, seen)
        report("frozen", seen, verdict)
        assert_kept(seen, verdict)

    @pytest.mark.parametrize("keys", [True, False], ids=["with keys", "without"])
    async def test_creates_cut_off_during_commit_are_applied_once_by_their_keys(
        self, cluster: Cluster, service: Service, database: str, *, keys: bool
    ) -> None:
        load = Load([service], await service.sign_up(), writers=WRITERS, keys=keys)
        writer = await cluster.writer()
        other = next(node for node in cluster.nodes if node is not writer)

        async with load.running() as seen:
            for _ in range(CUTS):
                await load.more(100)
                # Commits wait for a hanging node until it is evicted.
                other.send_signal(signal.SIGSTOP)
                await asyncio.sleep(0.5)
                await cluster.proxy.ask(f"shutdown sessions server galera/{writer.name}")
                other.send_signal(signal.SIGCONT)

        verdict = await judge(cluster, database, seen)
        report("cut off with keys" if keys else "cut off without keys", seen, verdict)
        assert "500" not in seen.answers
        if keys:
            assert verdict == Verdict(lost=[], doubled=[], gaps=[], apart=[])
            assert seen.replayed > 0
        else:
            # Without duplicates here, the case with keys would prove nothing.
            assert len(verdict.doubled) > 0


class TestEveryNodeAtOnce:
    @pytest.fixture
    async def services(
        self, cluster: Cluster, database: str, tmp_path: Path
    ) -> AsyncIterator[list[Service]]:
        """Run one instance per node, with the settings for several writers."""
        for node in cluster.nodes:
            await node.run("SET GLOBAL wsrep_sync_wait = 1")
            await node.run("SET GLOBAL wsrep_auto_increment_control = ON")
        async with started_at_each_node(cluster, database, tmp_path) as services:
            yield services
        for node in cluster.nodes:
            await node.run("SET GLOBAL wsrep_sync_wait = 0")
            await node.run("SET GLOBAL wsrep_auto_increment_control = OFF")

    @pytest.mark.parametrize("attempt", range(3))
    async def test_instances_start_concurrently(
        self, cluster: Cluster, database: str, tmp_path: Path, attempt: int
    ) -> None:
        async with started_at_each_node(cluster, database, tmp_path) as services:
            await services[attempt].sign_up()

        statement = "SELECT COUNT(*) FROM users WHERE role = 'admin'"
        assert [await node.rows(statement, database) for node in cluster.nodes] == [[(1,)]] * 3

    async def test_colliding_commits_are_retried(
        self, cluster: Cluster, services: list[Service], database: str
    ) -> None:
        load = Load(services, await services[0].sign_up(), writers=WRITERS)
        names = ("wsrep_local_cert_failures", "wsrep_local_bf_aborts")
        before = {name: await cluster.status(name) for name in names}

        async with load.running() as seen:
            await load.more(CREATES)

        verdict = await judge(cluster, database, seen)
        collisions = {name: await cluster.status(name) - before[name] for name in names}
        report("three writers", seen, verdict, **collisions)
        assert sum(collisions.values()) > 0
        assert_kept(seen, verdict)


class TestAllNodesDown:
    async def test_cluster_recovers_after_all_nodes_were_killed(
        self, cluster: Cluster, service: Service, database: str
    ) -> None:
        load = Load([service], await service.sign_up(), writers=WRITERS)
        async with load.running() as seen:
            await load.more(CREATES)
            await asyncio.gather(*(node.end(signal.SIGKILL) for node in cluster.nodes))
            await asyncio.gather(*(node.start() for node in cluster.nodes))
            await cluster.complete()
            await load.more(CREATES)

        verdict = await judge(cluster, database, seen)
        report("all killed", seen, verdict)
        assert verdict == Verdict(lost=[], doubled=[], gaps=[], apart=[])
        assert "500" not in seen.answers

    async def test_last_stopped_node_bootstraps_the_cluster(self, cluster: Cluster) -> None:
        for node in cluster.nodes:
            await node.end(signal.SIGTERM)

        *others, last = cluster.nodes
        assert [node.may_found for node in cluster.nodes] == [False, False, True]
        await last.start(found=True)
        for node in others:
            await node.start()

        await cluster.complete()


class TestConnections:
    async def test_new_connection_waits_until_its_node_has_applied_acknowledged_writes(
        self, cluster: Cluster, database: str
    ) -> None:
        first, second, _ = cluster.nodes
        await first.run(f"CREATE TABLE {database}.seen (id INT PRIMARY KEY)")
        insert = f"INSERT INTO {database}.seen VALUES (1)"  # noqa: S608 (a name from above)
        await second.rows("SELECT 1")
        url = make_url(cluster.url(database, second)).set(drivername="mysql+aiomysql")
        count = text("SELECT COUNT(*) FROM seen")

        async def read(connection: Any) -> Any:
            return await connection.scalar(count)

        settings, deadlines = settings_for(url), Deadlines(connect=1)
        old, new = (Database(settings, deadlines=deadlines) for _ in range(2))
        assert await run_on(old.connection(), read) == 0
        async with second.held_up():
            await first.run(insert)
            stale = await run_on(old.connection(), read)
            with pytest.raises(DatabaseUnavailable):
                await run_on(new.connection(), read)
        fresh = await run_on(new.connection(), read)
        await old.close()
        await new.close()

        assert (stale, fresh) == (0, 1)
