"""Acknowledged writes: durable and applied once while processes are killed at random moments.

Each writer owns its products and records acknowledgements. A write without an acknowledgement may
have been applied or not; an acknowledged one must have been.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.galera import free_ports
from tests.engines import EngineMissing
from tests.faults.figures import Figures
from tests.faults.scale import Scale
from tests.faults.servers import NAMES, DatabaseServer, database_server
from tests.server.service import Answer, Catalog, Client, Service
from tests.support import until

PATH = "/api/products"
WRITERS = 16
PAUSE_SECONDS = 0.02
"""Pause of a writer after a rejection or a lost connection."""


@dataclass
class Kept:
    """A writer's knowledge of one product.

    Attributes:
        product_id: from the acknowledged create.
        version: last acknowledged one.
        price: last acknowledged one.
        open_changes: prices of later changes without an acknowledgement.
        is_deleted: whether its deletion was acknowledged.
        may_be_deleted: whether a deletion was sent without an acknowledgement.
    """

    product_id: int
    version: int = 1
    price: float = 1.0
    open_changes: list[float] = field(default_factory=list)
    is_deleted: bool = False
    may_be_deleted: bool = False


class Row(NamedTuple):
    """A product in the database."""

    product_id: int
    name: str
    version: int
    price: float


@dataclass
class Verdict:
    """Differences between acknowledgements and the database."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    resurrected: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.resurrected)

    def __str__(self) -> str:
        return (
            f"lost {len(self.lost)} {self.lost[:5]}, doubled {len(self.doubled)}"
            f" {self.doubled[:5]}, resurrected {len(self.resurrected)} {self.resurrected[:5]}"
        )


def judge(told: dict[str, Kept], rows: Iterable[Row]) -> Verdict:
    """Compare the acknowledgements with the rows in the database."""
    verdict = Verdict()
    rows = list(rows)
    counts = Counter(row.name for row in rows)
    verdict.doubled += [name for name, count in counts.items() if count > 1]
    by_name = {row.name: row for row in rows}
    for name, kept in told.items():
        row = by_name.get(name)
        if row is None:
            if not (kept.is_deleted or kept.may_be_deleted):
                verdict.lost.append(f"{name}: created, and not there")
        elif kept.is_deleted:
            verdict.resurrected.append(f"{name}: deleted, and there as {row}")
        elif row.product_id != kept.product_id:
            verdict.lost.append(f"{name}: told as {kept.product_id}, and there as {row}")
        elif row.price not in {kept.price, *kept.open_changes} or row.version < kept.version:
            verdict.lost.append(f"{name}: {kept}, and there as {row}")
        elif row.version > kept.version + len(kept.open_changes):
            verdict.doubled.append(f"{name}: {kept}, and there as {row}")
    return verdict


class Writers:
    """Writers that keep writing until stopped, through failures of the service.

    Attributes:
        told: acknowledged state, by the product's name.
        acknowledged: number of acknowledgements.
        outcomes: counts by status; ``lost`` for no answer.
    """

    def __init__(self, url: str, token: str) -> None:
        self.told: dict[str, Kept] = {}
        self.acknowledged = 0
        self.outcomes: Counter[str] = Counter()
        self._url = url
        self._token = token
        self._stopped = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write inside the block; at its end finish pending requests."""
        tasks = [asyncio.create_task(self._write(number)) for number in range(WRITERS)]
        try:
            yield
        finally:
            self._stopped = True
            await asyncio.gather(*tasks)

    async def more(self, count: int, *, within: float) -> None:
        """Wait for ``count`` further acknowledgements."""
        goal = self.acknowledged + count
        await until(lambda: self.acknowledged >= goal, within=within)

    async def _write(self, writer: int) -> None:
        client = Client(self._url, self._token)
        mine: list[Kept] = []
        number = 0
        while not self._stopped:
            number += 1
            name = f"{writer}-{number}"
            kind = random.choices(("create", "keyed", "change", "delete"), (4, 3, 3, 2))[0]  # noqa: S311 (not a secret)
            if kind in {"create", "keyed"} or not mine:
                if (kept := await self._create(client, name, keyed=kind == "keyed")) is not None:
                    self.told[name] = kept
                    mine.append(kept)
            else:
                kept = random.choice(mine)  # noqa: S311 (not a secret)
                await (self._change if kind == "change" else self._delete)(client, kept)
                if kept.is_deleted or kept.may_be_deleted:
                    mine.remove(kept)
        await client.close()

    async def _ask(
        self, client: Client, method: str, path: str, *fields: str, body: object = None
    ) -> Answer | None:
        answer = await client.ask(method, path, *fields, body=body)
        self.outcomes["lost" if answer is None else str(answer.status)] += 1
        if answer is None or answer.status == 503:
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            self.acknowledged += answer.status in {200, 201}
        return answer

    async def _create(self, client: Client, name: str, *, keyed: bool) -> Kept | None:
        fields = [f"Idempotency-Key: {name}"] if keyed else []
        # Until stopped: a service that does not come back would else be retried for ever.
        while not self._stopped:
            body = {"name": name, "price": 1}
            answer = await self._ask(client, "POST", PATH, *fields, body=body)
            if answer is not None and answer.status == 201:
                return Kept(json.loads(answer.body)["id"])
            # Without a key a retry might create the product twice. A refusal is final: without a
            # flush the account itself may be lost.
            if not keyed or (answer is not None and answer.status not in {409, 503}):
                return None
        return None

    async def _change(self, client: Client, kept: Kept) -> None:
        price = max([kept.price, *kept.open_changes]) + 1
        kept.open_changes.append(price)
        path = f"{PATH}/{kept.product_id}"
        answer = await self._ask(client, "PATCH", path, body={"price": price})
        if answer is not None and answer.status == 200:
            kept.version, kept.price = json.loads(answer.body)["version"], price
            kept.open_changes.clear()

    async def _delete(self, client: Client, kept: Kept) -> None:
        answer = await self._ask(client, "DELETE", f"{PATH}/{kept.product_id}")
        kept.is_deleted = answer is not None and answer.status == 200
        # Any other refusal is an answer: the product is there, or was lost.
        kept.may_be_deleted = answer is None or answer.status == 503


class Site:
    """The service, restarted after each kill at the same address.

    Attributes:
        service: the running one.
    """

    def __init__(self, catalog: Catalog, server: DatabaseServer) -> None:
        self.service: Service
        self._catalog = catalog
        self._server = server
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        self.service = await self._stack.enter_async_context(self._catalog.start("--workers=2"))
        await self.service.serving()
        # Bind to the same port after restarts.
        self._catalog.environment["CATALOG_BIND"] = self.service.url.removeprefix("http://")

    async def kill_service(self) -> None:
        """Kill the supervisor, which ends the workers; start the service again."""
        self.service.send_signal(signal.SIGKILL)
        await self.close()
        await self.start()

    async def kill_worker(self) -> None:
        """Kill one worker; the supervisor replaces it."""
        victim = random.choice(sorted(self.service.workers))  # noqa: S311 (not a secret)
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)

    async def kill_database(self) -> None:
        """Kill the database and restart it."""
        self._server.kill()
        await self._server.start()

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture(scope="module", params=NAMES)
async def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[DatabaseServer]:
    """Provide a server of each engine to kill."""
    try:
        async with database_server(request.param, tmp_path_factory.mktemp("db")) as server:
            yield server
            return
    except EngineMissing as missing:
        reason = str(missing)
    pytest.skip(reason)


@asynccontextmanager
async def site_on(server: DatabaseServer, folder: Path) -> AsyncIterator[tuple[Site, str]]:
    """Run the service on a database of its own; yield it with the database's name."""
    database = await server.create_database()
    catalog = Catalog(folder)
    catalog.keep_deadlines()
    url = server.url_of(database).set(drivername="mysql")
    catalog.environment["DATABASE_URL"] = url.render_as_string(hide_password=False)
    # A run takes longer than the default lifetime of tokens.
    catalog.environment["CATALOG_ACCESS_TOKEN_TTL"] = "7200"
    site = Site(catalog, server)
    await site.start()
    try:
        yield site, database
    finally:
        await site.close()


async def rows_of(server: DatabaseServer, database: str) -> list[Row]:
    rows = await server.rows("SELECT id, name, version, price FROM products", database)
    return [Row(*row) for row in rows]


@pytest.mark.faults
class TestAcknowledgedWrites:
    async def test_kills_neither_lose_nor_double_acknowledged_writes(
        self, engine: DatabaseServer, scale: Scale, figures: Figures, tmp_path: Path
    ) -> None:
        if scale.name == "short" and engine.name != "mariadb":
            pytest.skip("in the full run only")
        async with site_on(engine, tmp_path) as (site, database):
            writers = Writers(site.service.url, await site.service.sign_up("ada"))
            kinds = [site.kill_database, site.kill_worker, site.kill_service]
            kills = kinds * (1 if scale.name == "short" else scale.kills)
            each = scale.acknowledgements // (len(kills) + 1) + 1
            async with writers.running():
                for kill in kills:
                    await writers.more(each, within=300)
                    await asyncio.sleep(random.uniform(0, 0.3))  # noqa: S311 (not a secret)
                    await kill()
                missing = max(1, scale.acknowledgements - writers.acknowledged)
                await writers.more(missing, within=300)
            verdict = judge(writers.told, await rows_of(engine, database))
            log = await engine.rows(
                "SELECT COUNT(*), MIN(position), MAX(position) FROM product_changes", database
            )

        check = f"acknowledged writes ({engine.name})"
        figures.add(check, "kills", len(kills))
        figures.add(
            check, "acknowledged", writers.acknowledged, limit=f">= {scale.acknowledgements}"
        )
        figures.add(check, "answers", dict(writers.outcomes))
        figures.add(check, "lost", len(verdict.lost), limit="0")
        figures.add(check, "doubled", len(verdict.doubled), limit="0")
        figures.add(check, "resurrected", len(verdict.resurrected), limit="0")
        assert set(writers.outcomes) <= {"200", "201", "404", "409", "503", "lost"}
        assert writers.outcomes["lost"], "The kills were none."
        assert verdict.is_clean, str(verdict)
        assert log == [(log[0][2], 1, log[0][2])], "Positions have gaps."

    async def test_kills_lose_writes_without_a_flush_at_each_commit(
        self, engine: DatabaseServer, scale: Scale, figures: Figures, tmp_path: Path
    ) -> None:
        """Negative control: the check detects the writes that such a database loses."""
        if scale.name == "short" and engine.name != "mariadb":
            pytest.skip("in the full run only")
        await engine.run("SET GLOBAL innodb_flush_log_at_trx_commit = 0")
        try:
            async with site_on(engine, tmp_path) as (site, database):
                writers = Writers(site.service.url, await site.service.sign_up("ada"))
                verdict, rounds = Verdict(), 0
                deadline = time.monotonic() + 120
                while verdict.is_clean and time.monotonic() < deadline:
                    async with writers.running():
                        await writers.more(300, within=120)
                        engine.kill()
                        await engine.start("--innodb-flush-log-at-trx-commit=0")
                        # There are none if the account is lost, too.
                        with suppress(AssertionError, TimeoutError):
                            await writers.more(1, within=10)
                    verdict = judge(writers.told, await rows_of(engine, database))
                    rounds += 1
                    token = await site.service.sign_up(f"bob{rounds}")
                    writers = Writers(site.service.url, token)
        finally:
            await engine.run("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        figures.add(f"without a flush ({engine.name})", "lost", len(verdict.lost), limit="> 0")
        assert verdict.lost


class TestWriters:
    async def test_writers_stop_while_the_service_is_down(self) -> None:
        (port,) = free_ports(1)
        writers = Writers(f"http://127.0.0.1:{port}", "token")

        async with asyncio.timeout(10), writers.running():
            await until(lambda: writers.outcomes["lost"] > 10 * WRITERS)

        assert set(writers.outcomes) == {"lost"}
        assert writers.told == {}


class TestJudge:
    """Detection of each kind of violation."""

    def test_matching_state_is_clean(self) -> None:
        told = {
            "kept": Kept(1),
            "changed": Kept(2, version=3, price=3.0),
            "open": Kept(3, version=1, price=1.0, open_changes=[2.0, 3.0]),
            "gone": Kept(4, is_deleted=True),
            "perhaps": Kept(5, may_be_deleted=True),
        }
        rows = [
            Row(1, "kept", 1, 1.0),
            Row(2, "changed", 3, 3.0),
            Row(3, "open", 3, 3.0),
            Row(5, "perhaps", 1, 1.0),
            Row(6, "never acknowledged", 1, 1.0),
        ]

        assert judge(told, rows).is_clean

    @pytest.mark.parametrize(
        ("kept", "rows", "finding"),
        [
            (Kept(1), [], "lost"),
            (Kept(1), [Row(2, "lamp", 1, 1.0)], "lost"),
            (Kept(1, version=2, price=2.0), [Row(1, "lamp", 1, 1.0)], "lost"),
            (Kept(1, version=2, price=2.0), [Row(1, "lamp", 2, 1.0)], "lost"),
            (Kept(1), [Row(1, "lamp", 1, 1.0), Row(2, "lamp", 1, 1.0)], "doubled"),
            (Kept(1, version=2, price=2.0), [Row(1, "lamp", 3, 2.0)], "doubled"),
            (Kept(1, is_deleted=True), [Row(1, "lamp", 1, 1.0)], "resurrected"),
        ],
    )
    def test_deviating_state_is_detected(self, kept: Kept, rows: list[Row], finding: str) -> None:
        assert getattr(judge({"lamp": kept}, rows), finding)
