"""Slow, vanishing, numerous and idle clients harm neither other clients nor the service."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.faults.attackers import attack
from tests.faults.figures import Figures
from tests.faults.load import READS_AND_KEYED_CREATES, Load, Plan
from tests.faults.scale import Scale
from tests.faults.site import MIB, Footprint, Site, connections_of, fill, site
from tests.server.nginx import needs_cache
from tests.server.service import Catalog, Connection

pytestmark = pytest.mark.faults

VICTIMS = 8
VICTIM_PAUSE_SECONDS = 0.01

FLOOR_SECONDS = 0.02
"""Below this, differences between two p99 are noise of the machine."""

CROWD_SECONDS = 0.12
"""Limit on p99 among hundreds of requests in progress through nginx, such as stalled bodies: after
a change those that wait for the new page look for it after 100 ms (ADR 0014)."""

DROP_SECONDS = 10.0
READER_SECONDS = 16.0
"""For clients that read nothing: 10 s after the last byte that the client's kernel accepts by
itself, which it does for up to 5 s."""

DROP_MARGIN_SECONDS = 10.0
"""Margin for closing hundreds of connections and for polling, on a busy machine."""

QUIET_SECONDS = 2.0
ATTACK_SECONDS = 3.0
"""Duration of a measurement under attack; attackers are dropped after 5 s at the earliest."""

BURST = 2000

MAX_GROWTH = 64 * MIB
"""Of both workers after an attack: allocators keep part of the memory."""

MAX_HELD = 100 * MIB
"""Of both workers, while clients read nothing."""

MAX_DESCRIPTORS = {"workers": 150, "nginx": 400, "supervisor": 5}
"""Growth after an attack: idle connections, 64 for each of nginx's two workers, to the service, and
from the front to the origin, of which nginx has both ends. Each one to a worker is also a task."""

MAX_NGINX_BYTES = 8 * 1024
MAX_SERVICE_BYTES = 96 * 1024
"""Memory per idle connection."""


class Harmed(AssertionError):
    """Latency of other clients above the bound."""


class Leaking(AssertionError):
    """Resources of attackers that were not released."""


def judge_latency(
    quiet: list[float], attacked: list[float], *, factor: float, least: float = 0.0
) -> tuple[float, float]:
    """Return p99 without and with attackers, in seconds.

    Raises:
        Harmed: the second exceeds the first by more than ``factor``, and ``least``.
    """
    before, during = p99(quiet), p99(attacked)
    if during > max(factor * max(before, FLOOR_SECONDS), least):
        raise Harmed(f"p99 {before * 1000:.1f} ms without, {during * 1000:.1f} ms with attackers")
    return before, during


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.99 * len(seconds))]


async def settles(measure: Callable[[], int], limit: int, *, within: float) -> float:
    """Wait until a number falls to a limit; return the elapsed seconds.

    Raises:
        Leaking: the limit was not reached in time.
    """
    began = time.monotonic()
    while (value := measure()) > limit:
        if time.monotonic() - began > within:
            raise Leaking(f"{value} and not at most {limit} after {within} s")
        await asyncio.sleep(0.1)
    return time.monotonic() - began


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Provide the service behind nginx with its default time-outs, and large pages."""
    catalog = Catalog(tmp_path_factory.mktemp("clients"))
    catalog.definitions.clear()
    async with site(catalog) as running:
        await fill(running.service, running.token, 2000, description=2000)
        yield running


class Victims:
    """Well-behaved clients, measured alternately without and with attackers."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.quiet: list[float] = []
        self.attacked: list[float] = []
        self.samples: list[str] = []
        self.failures = 0

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str) -> "AsyncIterator[Victims]":
        plan = Plan(url, VICTIMS, READS_AND_KEYED_CREATES, pause=VICTIM_PAUSE_SECONDS)
        async with Load.start(plan) as load:
            # Warm-up of caches and pools.
            await load.reaches(200, within=60)
            yield cls(load)
            await load.stop()

    async def during(self, phase: list[float], seconds: float) -> None:
        """Record the latencies of some seconds in a phase."""
        await self._load.report()
        await asyncio.sleep(seconds)
        report = await self._load.report()
        phase += report.latencies
        self.failures, self.samples = report.failures, report.samples


GAUGE_TIMEOUT_SECONDS = 30

SLOW = [
    ("heads", "nginx"),
    ("stalled_bodies", "nginx"),
    ("readers", "nginx"),
    ("heads", "straight"),
    ("bodies", "straight"),
    ("readers", "straight"),
]


SLOW_IN_SHORT = [("heads", "nginx"), ("bodies", "straight")]


@needs_cache
class TestSlowClients:
    @pytest.mark.parametrize(("kind", "way"), SLOW)
    async def test_slow_clients_are_dropped_without_delaying_others(
        self, running: Site, scale: Scale, figures: Figures, kind: str, way: str
    ) -> None:
        if scale.name == "short" and (kind, way) not in SLOW_IN_SHORT:
            pytest.skip("takes up to half a minute: in the full run only")
        url = running.nginx.url if way == "nginx" else running.service.url
        rounds = 1 if scale.name == "short" else 3
        drop_seconds = READER_SECONDS if kind == "readers" else DROP_SECONDS
        dropped: list[float] = []
        held = 0
        busy = 0.0
        async with Victims.of(url) as victims:
            before = running.footprints()
            connections = connections_of(url)
            tasks = (await running.numbers()).total("event_loop_tasks")
            for _ in range(rounds):
                await victims.during(victims.quiet, QUIET_SECONDS)
                given_up = await without_answer(running)
                async with attack(kind, url, scale.slow_clients) as attackers:
                    began = time.monotonic()
                    present = connections_of(url) - connections
                    if kind == "readers":
                        # Some are rejected: their pages exceed the memory for responses together.
                        present += int(await without_answer(running) - given_up)
                    assert present >= scale.slow_clients // 2
                    used = attackers.processor_seconds()
                    await victims.during(victims.attacked, ATTACK_SECONDS)
                    busy += (attackers.processor_seconds() - used) / ATTACK_SECONDS / rounds
                    grown = running.footprints()["workers"].resident - before["workers"].resident
                    held = max(held, grown)
                    await settles(
                        lambda: connections_of(url),
                        connections + scale.slow_clients // 10,
                        within=drop_seconds + DROP_MARGIN_SECONDS - ATTACK_SECONDS,
                    )
                    dropped.append(time.monotonic() - began)
                    await attackers.end()
            await victims.during(victims.quiet, QUIET_SECONDS)
            await no_leak(running, before, tasks)

        check = f"{scale.slow_clients} slow {kind.replace('_', ' ')}, {way}"
        figures.add(check, "dropped within", max(dropped), unit="s", limit=f"{drop_seconds} s")
        figures.add(check, "attackers' use of a core", 100 * busy, unit="%")
        least = CROWD_SECONDS if kind == "stalled_bodies" else 0.0
        note_latency(figures, check, victims, factor=scale.latency_factor, least=least)
        if kind == "readers":
            limit_text = f"{MAX_HELD // MIB} MiB"
            figures.add(check, "held by workers", held / MIB, unit="MiB", limit=limit_text)
            assert held <= MAX_HELD
        assert victims.failures == 0, "\n".join(victims.samples)


async def without_answer(running: Site) -> float:
    """Return how many requests were rejected, or aborted, for lack of response memory."""
    # Each worker reports twice a second.
    await asyncio.sleep(0.6)
    numbers = await running.numbers()
    refused = numbers.total("shed_total", reason="responses")
    return refused + numbers.total("http_stalled_clients_total")


def held_by(running: Site, target: str) -> int:
    """Return the number of open descriptors of the processes of a role."""
    return running.footprints()[target].descriptors


def note_latency(
    figures: Figures, check: str, victims: Victims, *, factor: float, least: float = 0.0
) -> None:
    """Record p99, then judge it.

    Raises:
        Harmed: as ``judge_latency``.
    """
    before, during = p99(victims.quiet), p99(victims.attacked)
    figures.add(check, "p99 of others without", before * 1000, unit="ms")
    limit = max(factor * max(before, FLOOR_SECONDS), least) * 1000
    figures.add(check, "p99 of others with", during * 1000, unit="ms", limit=f"{limit:.0f} ms")
    judge_latency(victims.quiet, victims.attacked, factor=factor, least=least)


async def no_leak(running: Site, before: dict[str, Footprint], tasks: float) -> None:
    """Check that the processes return to their former use of resources.

    Raises:
        Leaking: they do not.
    """
    for name, more in MAX_DESCRIPTORS.items():
        limit = before[name].descriptors + more
        await settles(lambda: held_by(running, name), limit, within=30)  # noqa: B023 (called at once)
    grown = running.footprints()["workers"].resident - before["workers"].resident
    if grown > MAX_GROWTH:
        raise Leaking(f"{grown / MIB:.0f} MiB more than before")
    most_tasks = tasks + MAX_DESCRIPTORS["workers"]
    deadline = time.monotonic() + 30
    while (now := (await running.numbers()).total("event_loop_tasks")) > most_tasks:
        if time.monotonic() > deadline:
            raise Leaking(f"{now} tasks and not at most {most_tasks}")
        await asyncio.sleep(0.2)


@needs_cache
class TestVanishingClients:
    @pytest.mark.parametrize("way", ["nginx", "straight"])
    @pytest.mark.parametrize("kind", ["resets", "leavers"])
    async def test_vanished_clients_leak_no_resources(
        self, running: Site, scale: Scale, figures: Figures, kind: str, way: str
    ) -> None:
        url = running.nginx.url if way == "nginx" else running.service.url
        async with Victims.of(url) as victims:
            before = running.footprints()
            tasks = (await running.numbers()).total("event_loop_tasks")
            await victims.during(victims.quiet, QUIET_SECONDS)
            async with attack(kind, url, scale.slow_clients // 10) as attackers:
                await asyncio.sleep(ATTACK_SECONDS)
                await attackers.end()
            await victims.during(victims.quiet, QUIET_SECONDS / 2)
            await no_leak(running, before, tasks)

        check = f"clients that leave ({kind}), {way}"
        after = running.footprints()
        grown = after["workers"].descriptors - before["workers"].descriptors
        figures.add(check, "descriptors more than before", grown)
        assert victims.failures == 0, "\n".join(victims.samples)
        assert not running.service.logged("event_loop_error")
        assert running.service.text == ""
        # Each worker reports the gauge twice a second, so it may lag.
        async with asyncio.timeout(GAUGE_TIMEOUT_SECONDS):
            while (await running.numbers()).total("http_requests_in_progress") > 2:
                await asyncio.sleep(0.2)


@needs_cache
class TestManyClients:
    async def test_burst_of_two_thousand_connects_is_answered(
        self, running: Site, figures: Figures
    ) -> None:
        async def ask() -> tuple[int, float]:
            began = time.monotonic()
            connection = await Connection.open(running.nginx.url)
            status = (await connection.get("/api/products?limit=1")).status
            await connection.close()
            return status, time.monotonic() - began

        answers = await asyncio.gather(*(ask() for _ in range(BURST)))

        seconds = [seconds for _, seconds in answers]
        figures.add(f"{BURST} connects at once", "p99", p99(seconds), unit="s")
        assert {status for status, _ in answers} == {200}

    async def test_idle_connections_use_little_memory_and_time_out(
        self, running: Site, scale: Scale, figures: Figures
    ) -> None:
        before = running.footprints()
        async with attack("idle", running.nginx.url, scale.idle_clients) as attackers:
            began = time.monotonic()
            during = running.footprints()
            # nginx may have dropped the first ones already, if opening took longer than its
            # time-out.
            held = connections_of(running.nginx.url)
            answer = await probe(running.nginx.url)
            within = DROP_SECONDS + DROP_MARGIN_SECONDS
            await settles(lambda: connections_of(running.nginx.url), 5, within=within)
            seconds = time.monotonic() - began
            fate = await attackers.end()

        each = (during["nginx"].resident - before["nginx"].resident) / held
        check = f"{scale.idle_clients} idle connections through nginx"
        figures.add(check, "held at once", held)
        figures.add(check, "nginx, each", each, unit="B", limit=f"{MAX_NGINX_BYTES} B")
        grown = during["workers"].descriptors - before["workers"].descriptors
        figures.add(check, "descriptors of the service", grown, limit="20")
        figures.add(check, "dropped within", seconds, unit="s", limit=f"{DROP_SECONDS} s")
        assert (answer, fate.opened, fate.held) == (200, scale.idle_clients, 0)
        assert held > scale.idle_clients // 2
        assert each <= MAX_NGINX_BYTES
        assert grown <= 20

    async def test_idle_connections_use_little_memory_of_the_service(
        self, running: Site, scale: Scale, figures: Figures
    ) -> None:
        count = scale.idle_clients // 10
        before = running.footprints()["workers"]
        async with attack("idle", running.service.url, count) as attackers:
            during = running.footprints()["workers"]
            answer = await probe(running.service.url)
            await attackers.end()
        await settles(lambda: held_by(running, "workers"), before.descriptors + 10, within=30)

        each = (during.resident - before.resident) / count
        check = f"{count} idle connections, straight"
        figures.add(check, "service, each", each, unit="B", limit=f"{MAX_SERVICE_BYTES} B")
        assert answer == 200
        # Meanwhile nginx may have closed idle connections of earlier requests.
        assert during.descriptors - before.descriptors >= count - MAX_DESCRIPTORS["workers"]
        assert each <= MAX_SERVICE_BYTES


async def probe(url: str) -> int:
    """Return the status of a first page on a new connection."""
    connection = await Connection.open(url)
    status = (await connection.get("/api/products?limit=1")).status
    await connection.close()
    return status


class TestControls:
    """Negative controls of the checks above."""

    def test_threefold_latency_is_detected(self) -> None:
        quiet = [0.03] * 1000

        with pytest.raises(Harmed):
            judge_latency(quiet, [0.03] * 980 + [0.1] * 20, factor=2)
        assert judge_latency(quiet, [0.05] * 1000, factor=2) == (0.03, 0.05)

    async def test_server_that_blocks_on_slow_heads_is_detected(self) -> None:
        """The server handles one connection at a time."""
        turn = asyncio.Lock()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with turn:
                try:
                    async with asyncio.timeout(0.1):
                        await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                except (TimeoutError, EOFError, OSError):
                    pass
                writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

            async def latencies() -> list[float]:
                found = []
                for _ in range(3):
                    began = time.monotonic()
                    await probe(url)
                    found.append(time.monotonic() - began)
                return found

            quiet = await latencies()
            async with attack("heads", url, 20):
                attacked = await latencies()

        with pytest.raises(Harmed):
            judge_latency(quiet, attacked, factor=2)

    async def test_leaked_descriptors_are_detected(self) -> None:
        code = "import sys; kept = [open('/dev/null') for _ in range(200)]; print(flush=True)"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", f"import sys; sys.stdin.readline(); {code}; sys.stdin.read()"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def descriptors() -> int:
            return Footprint.of(process.pid).descriptors

        before = descriptors()
        await settles(descriptors, before + 20, within=0.5)
        process.stdin.write(b"\n")
        await process.stdout.readline()

        with pytest.raises(Leaking):
            await settles(descriptors, before + 20, within=0.5)
        process.stdin.close()
        await process.wait()

    async def test_connection_kept_open_is_counted_as_held(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with attack("heads", url, 5) as attackers:
                fate = await attackers.end()

        assert (fate.opened, fate.held) == (5, 5)
