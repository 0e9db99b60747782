"""Processes that are killed, replaced and stopped under load through nginx."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.faults.figures import Figures
from tests.faults.load import READS_AND_KEYED_CREATES, Load, Plan, read_reply
from tests.faults.scale import Scale
from tests.faults.site import Site, fill, kill, site
from tests.server.nginx import needs_cache
from tests.server.processes import is_running
from tests.server.service import Catalog, Connection, Service
from tests.support import until

pytestmark = pytest.mark.faults

CLIENTS = 64
PAUSE_SECONDS = 0.2
"""Pause of each client, which leaves CPU time for starting processes."""

START_SECONDS = 120.0
"""Time for a worker to become ready on a loaded machine; on an idle one it takes 1 to 2 s."""

PRODUCTS = 2000

LOG_INS = 8
"""Log-ins with a wrong password: after ten, they are throttled."""

EXPORT = b"GET /api/products HTTP/1.1\r\nHost: catalog\r\nAccept: application/x-ndjson\r\n\r\n"

STARTING_SECONDS = 5.0
"""Time after the supervisor's death until workers that do not serve yet have exited: at once, but
for a busy machine. ``tests/server/test_supervisor.py`` holds the import to tell both apart."""

SERVING_SECONDS = 15.0
"""Time after the last request until serving workers have exited: a second to notify clients, and
some to close pools on a busy machine."""


async def kill_each_worker(service: Service, times: int) -> None:
    """Kill the workers one after the other, each time when all are ready."""
    for _ in range(times):
        for victim in sorted(service.workers):
            ready = len(service.logged("worker_ready"))
            kill(victim)
            await until(lambda: len(service.logged("worker_ready")) > ready, within=START_SECONDS)  # noqa: B023 (called at once)


async def reload(service: Service, times: int) -> None:
    """Reload the workers, ``times`` times."""
    for _ in range(times):
        done = len(service.logged("reload_done"))
        service.send_signal(signal.SIGHUP)
        await until(lambda: len(service.logged("reload_done")) > done, within=START_SECONDS)  # noqa: B023 (called at once)


@asynccontextmanager
async def dropping_server(one_in: int) -> AsyncIterator[str]:
    """Run a server that closes the connection instead of every n-th answer."""
    numbers = count(1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = b"{}"
                if head.startswith(b"POST"):
                    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    body = b'{"access_token": "a", "refresh_token": "r"}'
                elif next(numbers) % one_in == 0:
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class TestLoad:
    """Negative controls of the load generator."""

    async def test_dropped_requests_are_counted_at_one_percent(self) -> None:
        async with (
            dropping_server(100) as url,
            Load.start(Plan(url, 8, {"first_page": 1})) as load,
        ):
            await load.reaches(1000, within=60)
            report = await load.stop()

        assert report.failures == report.outcomes["first_page failed"]
        assert 0 <= report.failures - report.requests // 100 <= 1

    async def test_killed_worker_fails_requests_without_nginx(self, service: Service) -> None:
        await service.sign_up("tester")
        async with Load.start(Plan(service.url, CLIENTS, {"log_in": 1})) as load:
            await load.reaches(50, within=60)
            # Each request is in the middle of a log-in.
            kill(service.all_workers[0])
            await service.event("worker_ready", count=3)
            report = await load.stop()

        assert report.failures > 0


@pytest.fixture
async def service(catalog: Catalog) -> AsyncIterator[Service]:
    """Provide the service with two workers, ready."""
    async with catalog.start("--workers=2") as service:
        yield await service.serving()


@needs_cache
class TestUnderLoad:
    async def test_worker_kills_and_reloads_fail_no_request(
        self, on_mariadb: Catalog, scale: Scale, figures: Figures
    ) -> None:
        async with site(on_mariadb) as running:
            await fill(running.service, running.token, PRODUCTS)
            plan = Plan(running.nginx.url, CLIENTS, READS_AND_KEYED_CREATES, pause=PAUSE_SECONDS)
            async with Load.start(plan) as load:
                await load.reaches(500, within=60)
                await kill_each_worker(running.service, scale.worker_kills)
                await reload(running.service, scale.reloads)
                await load.reaches(scale.requests, within=3600)
                report = await load.stop()
            names = await names_of_lamps(running)

        kills = len(running.service.logged("worker_died", signal="Killed"))
        check = f"{kills} kills, {scale.reloads} reloads, {CLIENTS} clients"
        figures.add(check, "failed requests", f"{report.failures} of {report.requests}", limit="0")
        lost = set(load.created) - names.keys()
        doubled = [name for name, number in names.items() if number > 1]
        figures.add(check, "creates lost", f"{len(lost)} of {len(load.created)}", limit="0")
        figures.add(check, "creates doubled", len(doubled), limit="0")
        assert report.failures == 0, "\n".join(report.samples)
        assert report.requests >= scale.requests
        assert kills == 2 * scale.worker_kills
        assert (lost, doubled) == (set(), [])


async def names_of_lamps(running: Site) -> Counter[str]:
    """Return how often each name of the load's products occurs."""
    connection = await Connection.open(running.service.url)
    await connection.send(EXPORT)
    reply = await read_reply(connection.reader)
    await connection.close()
    assert reply.status == 200
    names = (json.loads(line)["name"] for line in reply.body.splitlines())
    return Counter(name for name in names if name.startswith("Lamp "))


class TestSupervisorsDeath:
    async def test_serving_workers_finish_requests_and_exit(
        self, service: Service, figures: Figures
    ) -> None:
        loop = asyncio.get_running_loop()
        workers = service.workers
        connections = [await service.connect() for _ in range(LOG_INS)]
        for connection in connections:
            await connection.begin_sign_in()
        await service.get("/livez")

        service.send_signal(signal.SIGKILL)
        while not await service.refuses():
            await asyncio.sleep(0.02)
        answers = [await connection.finish_sign_in() for connection in connections]
        finished = loop.time()
        await until(lambda: not any(map(is_running, workers)))

        seconds = loop.time() - finished
        figures.add("supervisor killed", "workers gone after the last answer", seconds, unit="s")
        assert [answer.status for answer in answers] == [401] * LOG_INS
        assert seconds < SERVING_SECONDS

    @pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.2, 0.4])
    async def test_starting_worker_exits_at_once(
        self, service: Service, figures: Figures, after: float
    ) -> None:
        loop = asyncio.get_running_loop()
        kill(service.all_workers[0])
        new = (await service.event("worker_started", count=3))["worker"]
        # Covers interpreter start, imports and connecting: the death must be noticed in each.
        await asyncio.sleep(after)
        was_serving = service.logged("worker_ready", worker=new)

        service.send_signal(signal.SIGKILL)
        began = loop.time()
        await until(lambda: not is_running(new))

        seconds = loop.time() - began
        limit = SERVING_SECONDS if was_serving else STARTING_SECONDS
        figures.add(
            f"supervisor killed {after} s after a worker's start",
            "worker gone after",
            seconds,
            unit="s",
            limit=f"{limit} s",
        )
        assert seconds < limit


class TestStop:
    async def test_requests_in_flight_finish_on_sigterm(
        self, service: Service, figures: Figures
    ) -> None:
        token = await service.sign_up()
        await fill(service, token, PRODUCTS, description=2000)
        log_ins = [await service.connect() for _ in range(LOG_INS)]
        for connection in log_ins:
            await connection.begin_sign_in()
        imports = [await service.connect() for _ in range(4)]
        for connection in imports:
            await connection.send(import_head(token) + piece_of_import(b'{"name":"A","price":1}\n'))
        exports = [await service.connect() for _ in range(4)]
        for connection in exports:
            await connection.send(EXPORT)
            await connection.reader.readexactly(1)
        await service.get("/livez")

        service.send_signal(signal.SIGTERM)
        await service.event("stopping")
        while not await service.refuses():
            assert is_running(service.process.pid)
        for connection in imports:
            await connection.send(piece_of_import(b'{"name":"B","price":2}\n') + b"0\r\n\r\n")
        lines = [len((await read_rest(each)).splitlines()) for each in exports]
        reports = [await each.answer() for each in imports]
        statuses = [(await each.finish_sign_in()).status for each in log_ins]
        code = await service.exit_code()

        in_flight = len(log_ins) + len(imports) + len(exports)
        figures.add("SIGTERM", "requests in flight, all finished", in_flight)
        assert statuses == [401] * LOG_INS
        assert [(each.status, json.loads(each.body)["created"]) for each in reports] == [
            (200, 2)
        ] * 4
        assert lines == [PRODUCTS] * 4
        assert (code, service.text) == (0, "")


def import_head(token: str) -> bytes:
    """Return the head of an import of unknown length."""
    return (
        "POST /api/products HTTP/1.1\r\nHost: catalog\r\nContent-Type: application/x-ndjson\r\n"
        f"Authorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()


def piece_of_import(data: bytes) -> bytes:
    """Return a chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def read_rest(connection: Connection) -> bytes:
    """Read the rest of an answer whose first byte was consumed; return its body."""
    connection.reader._buffer[:0] = b"H"  # type: ignore[attr-defined]  # to read it as a whole
    return (await read_reply(connection.reader)).body


class TestCrashLoop:
    async def test_crash_loop_ends_the_service_with_one_line(
        self, catalog: Catalog, figures: Figures
    ) -> None:
        broken = catalog.folder / "is-broken"
        catalog.break_interpreters(f"os.path.exists({str(broken)!r}) and os._exit(3)")
        async with catalog.start("--workers=2") as service:
            await service.serving()
            loop = asyncio.get_running_loop()
            broken.touch()

            for worker in service.workers:
                kill(worker)
            began = loop.time()
            code = await service.exit_code()

            deaths = len(service.logged("worker_died", exit_code=3))
            figures.add("crash loop", "deaths until the service ends", deaths)
            figures.add("crash loop", "time until it ends", loop.time() - began, unit="s")
            assert code == 1
            assert service.text.count("\n") == 1
            assert "workers in a row crashed at start" in service.text

    async def test_service_continues_when_workers_recover(self, catalog: Catalog) -> None:
        """Negative control: fewer deaths are no crash loop."""
        starts = Path(catalog.folder / "starts")
        catalog.break_interpreters(
            f"open({str(starts)!r}, 'a').write('x')\n"
            f"    if 2 < len(open({str(starts)!r}).read()) < 8: os._exit(3)"
        )
        async with catalog.start("--workers=2") as service:
            await service.serving()

            for worker in service.workers:
                os.kill(worker, signal.SIGKILL)

            await service.event("worker_ready", count=4)
            assert (await service.get("/livez")).status == 200
