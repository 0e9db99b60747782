"""Database faults: deadlines hold, failures are 503 with Retry-After, and recovery is quick.

Every check runs on MariaDB and MySQL, under load by clients in a process of their own, and shows
that its fault took effect. The last class shows that the checks can fail.
"""

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiomysql
import pytest

from tests.conftest import FOUND
from tests.engines import EngineMissing, connected
from tests.faults.database_site import PATH, Site, site_on
from tests.faults.figures import Figures
from tests.faults.judgement import Judgement, under_load
from tests.faults.outcomes import READ_SECONDS, WRITE_SECONDS
from tests.faults.proxy import Fault
from tests.faults.scale import Scale
from tests.faults.servers import NAMES, Backup, DatabaseServer, database_server, end_sessions
from tests.server.service import Connection

pytestmark = pytest.mark.faults

COUNTER = "SELECT position FROM change_counter WHERE id = 1 FOR UPDATE"


@pytest.fixture(scope="module", params=NAMES)
async def engine(
    request: pytest.FixtureRequest, figures: Figures, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[DatabaseServer]:
    """Provide a server of each engine for fault injection."""
    name = request.param
    try:
        async with database_server(name, tmp_path_factory.mktemp(name)) as server:
            request.config.stash[FOUND][name] = server.version
            yield server
            return
    except EngineMissing as missing:
        reason = str(missing)
    figures.add(f"all on {name}", "SKIPPED", reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
async def straight_site(
    engine: DatabaseServer, scale: Scale, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    async with site_on(engine, tmp_path_factory.mktemp("straight"), scale) as site:
        yield site


@pytest.fixture(scope="module")
async def distant_site(
    engine: DatabaseServer, scale: Scale, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("distant")
    async with site_on(engine, folder, scale, through_proxy=True) as site:
        yield site


@pytest.fixture
async def site(straight_site: Site) -> AsyncIterator[Site]:
    """Provide the service connected directly to the server."""
    yield straight_site
    await straight_site.recovered()


@pytest.fixture
async def distant(distant_site: Site) -> AsyncIterator[Site]:
    """Provide the service connected to the server through the fault proxy."""
    yield distant_site
    # Clean-up after a failed check.
    distant_site.proxy.heal()
    await distant_site.proxy.listen()
    distant_site.proxy.reset()
    await distant_site.server.end_sessions()
    await distant_site.recovered()


def of(scale: Scale, *, short: int, full: int) -> int:
    """Return a size that is specific to one check."""
    return full if scale.name == "full" else short


def skip_in_short(scale: Scale, engine: str = "", *, because: str = "") -> None:
    """Skip a check in the short run, on MySQL or on both engines."""
    if scale.name == "short" and engine in {"", "mysql"}:
        pytest.skip(because or "in the full run only")


class TestProcess:
    async def test_database_kill_and_restart_are_survived(
        self, site: Site, scale: Scale, figures: Figures
    ) -> None:
        cause = r"\b(2003|2006|2013)\b"
        for _ in range(of(scale, short=1, full=5)):
            async with under_load(site, figures, "database killed", cause=cause) as fault:
                site.server.kill()
                await asyncio.sleep(1.0)
                await site.server.start()
                fault.is_over()

    async def test_frozen_database_is_survived(
        self, site: Site, scale: Scale, figures: Figures
    ) -> None:
        skip_in_short(scale, site.server.name)
        # Longer than a write's deadline, so that writes can time out.
        seconds = of(scale, short=6, full=20)
        cause = "did not answer|TimeoutError|2013"
        async with under_load(site, figures, "database frozen", cause=cause) as fault:
            site.server.freeze()
            try:
                await asyncio.sleep(seconds)
            finally:
                site.server.thaw()
            fault.is_over()


class TestNetwork:
    @pytest.mark.parametrize("hole", ["swallowed", "held", "unanswered"])
    async def test_blackholed_network_is_survived(
        self, distant: Site, scale: Scale, figures: Figures, hole: str
    ) -> None:
        skip_in_short(scale)
        cause = "did not answer|TimeoutError|2013|2003"
        async with under_load(distant, figures, f"blackhole, {hole}", cause=cause) as fault:
            if hole == "unanswered":
                distant.proxy.ignore_connects()
            if hole != "held":
                distant.proxy.use(Fault.blackhole())
            else:
                distant.proxy.stall()
            await asyncio.sleep(20)
            distant.proxy.heal()
            await distant.proxy.listen()
            fault.is_over()

    async def test_connections_dropped_by_a_firewall_are_replaced(
        self, distant: Site, scale: Scale, figures: Figures
    ) -> None:
        """Old connections stay dead, with the locks they hold; new ones work at once."""
        skip_in_short(scale, distant.server.name)
        async with under_load(distant, figures, "forgotten connections", bites=False) as fault:
            distant.proxy.use(Fault.blackhole())
            distant.proxy.use(Fault(), for_open=False)
            # A transaction may hold the counter lock, and MySQL, which cannot end idle transactions
            # only, ends its connection after twice a write's deadline.
            await asyncio.sleep(2 * WRITE_SECONDS + 1.0)
            fault.is_over()

    async def test_slow_network_is_survived(
        self, distant: Site, scale: Scale, figures: Figures
    ) -> None:
        skip_in_short(scale, distant.server.name)
        async with under_load(distant, figures, "slow database", bites=False) as fault:
            distant.proxy.use(Fault.delay(0.3))
            await asyncio.sleep(of(scale, short=5, full=20))
            distant.proxy.heal()
            fault.is_over()

    async def test_connection_resets_are_survived(
        self, distant: Site, scale: Scale, figures: Figures
    ) -> None:
        resets = 0
        async with under_load(distant, figures, "resets", bites=False) as fault:
            while resets < scale.resets:
                resets += distant.proxy.reset()
                await asyncio.sleep(0.05)
            fault.is_over()
        figures.add(f"resets ({distant.server.name})", "connections reset", resets)

    async def test_connections_cut_midway_are_replaced(
        self, distant: Site, scale: Scale, figures: Figures
    ) -> None:
        skip_in_short(scale, distant.server.name)
        async with under_load(distant, figures, "cut connections", bites=False) as fault:
            for turn in range(of(scale, short=20, full=200)):
                # Cut anywhere from the handshake to the middle of a page.
                size = 1 + 977 * turn % 30_000
                way = ({"to_client": size}, {"to_server": size})[turn % 2]
                distant.proxy.use(Fault.cut_after(**way))
                await asyncio.sleep(0.1)
                if turn % 5 == 0:
                    distant.proxy.half_close("client" if turn % 2 else "server")
            distant.proxy.heal()
            fault.is_over()

    async def test_dropped_database_answers_are_survived(
        self, distant: Site, scale: Scale, figures: Figures
    ) -> None:
        skip_in_short(scale)
        async with under_load(distant, figures, "answers dropped") as fault:
            distant.proxy.use(Fault.drop_answers())
            await asyncio.sleep(8)
            distant.proxy.heal()
            distant.proxy.reset()
            fault.is_over()


class TestLimits:
    async def test_exhausted_connections_are_survived(
        self, site: Site, scale: Scale, figures: Figures
    ) -> None:
        skip_in_short(scale, site.server.name)
        server, url = site.server, site.server.url_of(site.database)
        ((usual,),) = await server.rows("SELECT @@GLOBAL.max_connections")
        # The administrator connects first, as at most one more connection fits afterwards.
        async with connected(server.url) as administrator, AsyncExitStack() as stack:
            check = under_load(site, figures, "connections used up", cause="1040")
            async with check as fault:
                taken = [await stack.enter_async_context(connected(url)) for _ in range(10)]
                try:
                    await administrator.execute("SET GLOBAL max_connections = 10")
                    spared = [each.connection.thread_id() for each in taken]
                    await end_sessions(administrator, *spared)
                    await asyncio.sleep(2.5)
                finally:
                    await administrator.execute(f"SET GLOBAL max_connections = {usual}")
                    await stack.aclose()
                fault.is_over()

    async def test_read_only_database_is_survived(
        self, site: Site, scale: Scale, figures: Figures
    ) -> None:
        skip_in_short(scale, site.server.name)
        name = "read_only" if site.server.name == "mariadb" else "super_read_only"
        async with under_load(site, figures, "read-only", cause="1290|1836") as fault:
            await site.server.run(f"SET GLOBAL {name} = ON")
            try:
                await asyncio.sleep(2.5)
            finally:
                await site.server.run("SET GLOBAL read_only = OFF")
            fault.is_over()

    async def test_full_disk_is_survived(self, site: Site, scale: Scale, figures: Figures) -> None:
        if not site.server.has_small_disk:
            pytest.skip("the data has no small disk: mounting a tmpfs is not allowed here")
        because = "its binary log looks for room once in 60 s: in the full run only"
        skip_in_short(scale, site.server.name, because=because)
        cause = r"\b(1114|1021|1180|1030|1026|28)\b|TimeoutError"
        refused = 0
        async with under_load(site, figures, "disk full", cause=cause, bites=False) as fault:
            ballast = site.server.fill_disk()
            try:
                # Fill the free space inside the table files.
                until = time.monotonic() + of(scale, short=5, full=30)
                description = secrets.token_hex(8000)
                while time.monotonic() < until:
                    body = {"name": "Large", "price": 1, "description": description}
                    answers = await asyncio.gather(
                        *(site.ask("POST", PATH, body=body) for _ in range(4))
                    )
                    assert {answer.status for answer in answers} <= {201, 503}, answers
                    refused += sum(answer.status == 503 for answer in answers)
            finally:
                ballast.unlink()
            await site.server.revive()
            fault.is_over()
        assert refused, "The fault was none."


class TestLocks:
    async def test_locked_tables_are_survived(
        self, site: Site, scale: Scale, figures: Figures
    ) -> None:
        skip_in_short(scale)
        locks = "LOCK TABLES products WRITE, change_counter WRITE"
        async with under_load(site, figures, "tables locked") as fault:
            async with connected(site.server.url.set(database=site.database)) as cursor:
                await cursor.execute(locks)
                await asyncio.sleep(20)
            fault.is_over()

    async def test_locked_counter_row_blocks_writes_only(
        self, site: Site, scale: Scale, figures: Figures
    ) -> None:
        """Reads succeed, and writes are rejected in time."""
        skip_in_short(scale, site.server.name)
        async with under_load(site, figures, "counter locked", cause="1205|busy") as fault:
            async with connected(site.server.url.set(database=site.database)) as cursor:
                await cursor.execute("BEGIN")
                await cursor.execute(COUNTER)
                await asyncio.sleep(of(scale, short=6, full=20))
                reads = await asyncio.gather(*(site.ask("GET", PATH) for _ in range(10)))
                assert {answer.status for answer in reads} == {200}
            fault.is_over()

    async def test_locks_of_a_dead_connection_are_released(
        self, distant: Site, scale: Scale, figures: Figures
    ) -> None:
        """The dead connection's transaction holds the counter lock."""
        skip_in_short(scale)
        async with connected(distant.server.url.set(database=distant.database)) as cursor:
            await cursor.execute("BEGIN")
            await cursor.execute(COUNTER)
            asking = asyncio.create_task(distant.ask("POST", PATH, body={"name": "x", "price": 1}))
            await asyncio.sleep(0.5)
            distant.proxy.use(Fault.blackhole())
            distant.proxy.use(Fault(), for_open=False)
            # The dead connection now gets the lock, and its client cannot commit.
            await cursor.execute("ROLLBACK")
        answer = await asking
        assert answer.status == 503, answer.body
        seconds = await distant.recovered()
        check = f"dead transaction ({distant.server.name})"
        figures.add(check, "writes again after", seconds, unit="s", limit="15 s")
        assert seconds <= 15

    async def test_forced_deadlocks_are_survived(
        self, site: Site, scale: Scale, figures: Figures
    ) -> None:
        """Changes collide with a transaction that locks the same two rows in reverse order."""
        await site.renew_token()
        product = await site.create("Contested")
        before = await site.server.deadlocks()
        statuses: Counter[int] = Counter()
        version = 1
        async with connected(site.server.url.set(database=site.database)) as cursor:
            # InnoDB rolls back the transaction that has changed fewer rows.
            await cursor.execute("CREATE TABLE ballast (id INT PRIMARY KEY, n INT)")
            rows = ", ".join(f"({number}, 0)" for number in range(100))
            await cursor.execute(f"INSERT INTO ballast VALUES {rows}")  # noqa: S608 (numbers)
            deadlocks, wait = 0, 0.02
            while deadlocks < scale.deadlocks:
                await cursor.execute("BEGIN")
                await cursor.execute("UPDATE ballast SET n = n + 1")
                await cursor.execute(COUNTER)
                path, body = f"{PATH}/{product}", {"price": statuses.total()}
                asking = asyncio.create_task(site.ask("PATCH", path, body=body))
                await asyncio.sleep(wait)
                with suppress(aiomysql.OperationalError):
                    row = f"SELECT id FROM products WHERE id = {product} FOR UPDATE"  # noqa: S608
                    await cursor.execute(row)
                await cursor.execute("ROLLBACK")
                answer = await asking
                statuses[answer.status] += 1
                version += answer.status == 200
                found = await site.server.deadlocks() - before
                # Without a deadlock the PATCH was too slow: wait longer before the second lock.
                wait *= 0.9 if found > deadlocks else 1.5
                deadlocks = found
            await cursor.execute("DROP TABLE ballast")
        check = f"forced deadlocks ({site.server.name})"
        figures.add(check, "deadlocks", deadlocks, limit=f"{scale.deadlocks}")
        figures.add(check, "answers", dict(statuses), limit="200, 503")
        assert set(statuses) <= {200, 503}
        assert statuses[200] >= statuses.total() * 0.9
        shown = json.loads((await site.ask("GET", f"{PATH}/{product}")).body)
        assert shown["version"] == version, "A change was lost, or made twice."


class TestRestore:
    async def test_clients_survive_a_restore(self, site: Site, figures: Figures) -> None:
        backup = Backup(site.server, site.database)
        await backup.take()
        check = under_load(site, figures, "restored", bites=False, may_be_gone=True)
        async with check as fault:
            await backup.restore()
            fault.is_over()
        await backup.drop()

    async def test_stale_data_is_not_served_after_a_restore(
        self, site: Site, figures: Figures
    ) -> None:
        """A reused position is not mistaken for the old one, and followers get 410."""
        backup = Backup(site.server, site.database)
        await site.renew_token()
        await backup.take()
        gone = [await site.create(f"Gone {number}") for number in range(5)]
        before = await site.ask("GET", f"{PATH}?limit=20")
        since = before.headers.get("catalog-change", before.headers["catalog-position"])
        stale: list[Any] = []
        followers: Counter[int] = Counter()
        async with AsyncExitStack() as stack:
            connections = [await Connection.open(site.service.url) for _ in range(12)]
            for connection in connections:
                stack.push_async_callback(connection.close)
                # Warm up the page cache of each worker with the old state.
                assert (await connection.get(f"{PATH}?limit=20")).body == before.body
                for product in gone:
                    assert (await connection.get(f"{PATH}/{product}")).status == 200
            await backup.restore()
            others = [await site.create(f"Other {number}") for number in range(len(gone))]
            rows = await site.server.rows("SELECT position FROM change_counter", site.database)
            assert rows == [(int(before.headers["catalog-position"]),)]
            for connection in connections:
                for fields in ([], ["Cache-Control: no-cache"]):
                    answer = await connection.get(f"{PATH}?limit={len(others)}", *fields)
                    shown = json.loads(answer.body)["products"]
                    if [each["id"] for each in shown] != others[::-1]:
                        stale.append(shown)
                    stale += [each for each in shown if each["name"].startswith("Gone")]
                    for product in gone:
                        answer = await connection.get(f"{PATH}/{product}", *fields)
                        if b"Gone" in answer.body:
                            stale.append(answer.body)
                answer = await connection.get(f"{PATH}/changes?since={since}")
                followers[answer.status] += 1
        await backup.drop()
        check = f"restored ({site.server.name})"
        figures.add(check, "stale answers", len(stale), limit="0")
        figures.add(check, "followers from before", dict(followers), limit="410")
        assert stale == []
        assert set(followers) == {410}


class TestControls:
    """Negative control: a service with a long time-out of reads is detected."""

    async def test_service_with_a_long_read_time_out_is_late(
        self, engine: DatabaseServer, scale: Scale, tmp_path: Path
    ) -> None:
        if engine.name != "mariadb":
            pytest.skip("once is enough")
        patient = {"catalog.db.deadlines": "DEADLINES = Deadlines(read=30)"}
        async with site_on(engine, tmp_path, scale, definitions=patient) as site:
            async with site.clients(8) as clients:
                began = time.monotonic()
                engine.freeze()
                try:
                    await asyncio.sleep(READ_SECONDS + scale.grace_seconds + 1.5)
                finally:
                    engine.thaw()
                ended = time.monotonic()
                await asyncio.sleep(0.5)

            judgement = Judgement(site, clients, began, ended)

        assert any(found.startswith("late:") for found in judgement.violations)
        with pytest.raises(AssertionError, match="late"):
            judgement.check(bites=False)
