"""``/metrics`` of a whole instance: complete from every worker, also when workers die."""

import asyncio
import json
import os
import signal
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from tests.numbers import Numbers
from tests.server.service import TIMEOUT_SECONDS, Catalog, Connection, Service
from tests.support import until


async def numbers_of(service: Service) -> Numbers:
    """Scrape the worker that accepts the connection."""
    answer = await service.get("/metrics")
    assert answer.status == 200
    return Numbers(answer.body.decode())


async def expect(service: Service, count: float, **labels: str) -> None:
    """Assert the number of requests; each is counted before its response has ended."""
    assert (await numbers_of(service)).total("http_requests_total", **labels) == count


def folder_of(worker: int) -> Path:
    """Return the folder of a worker's metrics files."""
    environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    (folder,) = [each for each in environment if each.startswith(b"PROMETHEUS_MULTIPROC_DIR=")]
    return Path(folder.partition(b"=")[2].decode())


async def ask_everything(connection: Connection, token: str) -> None:
    """Send one request along each path through the service."""
    assert (await connection.get("/api/products")).status == 200
    assert (await connection.get("/livez")).status == 200
    assert (await connection.get("/api/products/4711")).status == 404
    body = {"name": "Lamp", "price": 1}
    assert (await connection.ask("POST", "/api/products", token=token, body=body)).status == 201
    assert (await connection.ask("POST", "/api/products", body=body)).status == 401


class TestAllWorkers:
    CONNECTIONS = 24
    ROUNDS = 10

    async def test_each_request_is_counted_once_and_reported_by_each_worker(
        self, service: Service
    ) -> None:
        token = await service.sign_up()
        connections = [await service.connect() for _ in range(self.CONNECTIONS)]

        async def ask(connection: Connection) -> None:
            for _ in range(self.ROUNDS):
                await ask_everything(connection, token)

        await asyncio.gather(*map(ask, connections))
        expected = self.CONNECTIONS * self.ROUNDS
        kinds = (
            {"method": "GET", "route": "/api/products", "status": "200"},
            {"method": "GET", "route": "/livez", "status": "200"},
            {"method": "GET", "route": "/api/products/<id>", "status": "404"},
            {"method": "POST", "route": "/api/products", "status": "201"},
            {"method": "POST", "route": "/api/products", "status": "401"},
        )
        for kind in kinds:
            await expect(service, expected, **kind)

        # The connections lead to both workers, and a worker states its own gauges when it is asked.
        for connection in connections:
            await connection.get("/metrics")
        for connection in connections:
            answer = await connection.get("/metrics")
            numbers = Numbers(answer.body.decode())
            for kind in kinds:
                assert numbers.total("http_requests_total", **kind) == expected
            assert numbers.total("write_batch_size_sum") == expected
            assert numbers.total("workers") == 2
            assert numbers.total("position") == expected
            assert numbers.total("db_pool_size", pool="read") == 2 * 5
        assert len({folder_of(worker) for worker in service.workers}) == 1

    async def test_openmetrics_is_negotiated(self, service: Service) -> None:
        connection = await service.connect()
        await connection.get("/livez")

        answer = await connection.get(
            "/metrics", "Accept: application/openmetrics-text;version=1.0.0"
        )
        families = {family.name: family for family in openmetrics(answer.body.decode())}

        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert families["catalog_http_requests"].type == "counter"
        assert families["catalog_http_request_duration_seconds"].type == "histogram"
        assert families["catalog_workers"].samples[0].value == 2
        assert all(family.documentation for family in families.values())

    async def test_malformed_request_is_counted(self, service: Service) -> None:
        for _ in range(3):
            connection = await service.connect()
            await connection.send(b"\x16\x03\x01 nonsense\r\n\r\n")
            assert (await connection.answer()).status == 400

        await expect(service, 3, method="other", route="other", status="400")

    async def test_requests_in_progress_are_summed_over_workers(self, service: Service) -> None:
        busy = [await service.connect() for _ in range(8)]
        for connection in busy:
            await connection.begin_sign_in()

        async with asyncio.timeout(TIMEOUT_SECONDS):
            # The scrape itself is in progress too.
            while (await numbers_of(service)).total("http_requests_in_progress") != 9:
                await asyncio.sleep(0.05)


class TestDeadWorkers:
    async def test_counters_of_dead_workers_stay_and_gauges_go(self, service: Service) -> None:
        connections = [await service.connect() for _ in range(16)]
        for connection in connections:
            await connection.get("/livez")
            await connection.begin_sign_in()

        for kills in range(1, 4):
            victim = max(service.workers)
            os.kill(victim, signal.SIGKILL)
            await service.event("worker_died", worker=victim)
            await service.event("worker_ready", count=2 + kills)
            await expect(service, 16, route="/livez")
            numbers = await numbers_of(service)

            assert numbers.total("workers") == 2
            assert numbers.total("worker_restarts_total") == kills
            assert numbers.total("http_requests_in_progress") < 17

        assert len(list(folder_of(max(service.workers)).glob("counter_*.db"))) == 3

    async def test_reload_is_no_restart_and_keeps_counters(self, service: Service) -> None:
        for _ in range(10):
            await service.get("/livez")

        service.send_signal(signal.SIGHUP)
        await service.event("reload_done")
        await until(lambda: len(service.workers) == 2)
        await expect(service, 10, route="/livez")
        numbers = await numbers_of(service)

        assert numbers.total("worker_restarts_total") == 0
        assert numbers.total("workers") == 2
        assert len(numbers.series("build_info")) == 1


class TestFolder:
    async def test_folder_is_removed_with_the_service(self, catalog: Catalog) -> None:
        async with catalog.start() as service:
            await service.serving()
            folder = folder_of(service.all_workers[0])
            assert folder.is_dir()

            service.send_signal(signal.SIGTERM)
            assert await service.exit_code() == 0

        assert not folder.exists()

    async def test_abandoned_folder_is_removed_at_the_next_start(self, catalog: Catalog) -> None:
        async with catalog.start() as service:
            await service.serving()
            left_behind = folder_of(service.all_workers[0])
        assert left_behind.is_dir()

        async with catalog.start() as service:
            await service.serving()
            own = folder_of(service.all_workers[0])

            assert own.is_dir()
            assert not left_behind.exists()

    async def test_folder_of_another_service_stays(
        self, catalog: Catalog, service: Service
    ) -> None:
        folder = folder_of(service.all_workers[0])

        async with catalog.start() as other:
            await other.serving()
            assert folder.is_dir()
            assert folder_of(other.all_workers[0]) != folder

        await service.get("/livez")
        await expect(service, 1, route="/livez")

    async def test_folder_is_private_to_its_owner(self, service: Service) -> None:
        folder = folder_of(service.all_workers[0])

        assert folder.stat().st_mode & 0o777 == 0o700


class TestLog:
    async def test_trace_id_is_logged_with_its_own_requests_only(self, catalog: Catalog) -> None:
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        async with catalog.start(CATALOG_ACCESS_LOG="all") as service:
            await service.serving()
            connection = await service.connect()
            for path in ("/api/products", "/openapi.json"):
                await connection.get(path, f"traceparent: 00-{trace}-00f067aa0ba902b7-01")
                await connection.get(path)
            await service.event("request", count=4)

            traces = [event.get("trace_id") for event in service.logged("request")]
            assert traces == [trace, None] * 2

    async def test_scrapes_and_health_checks_are_not_logged(self, catalog: Catalog) -> None:
        async with catalog.start(CATALOG_ACCESS_LOG="all") as service:
            await service.serving()
            connection = await service.connect()
            for path in ("/metrics", "/livez", "/readyz", "/openapi.json"):
                await connection.get(path)
            assert (await connection.ask("DELETE", "/livez")).status == 405
            await service.event("request", count=2)

            paths = [event["path"] for event in service.logged("request")]
            assert paths == ["/openapi.json", "/livez"], json.dumps(paths)

    async def test_every_request_before_a_stop_is_logged(self, catalog: Catalog) -> None:
        async with catalog.start("--workers=2", CATALOG_ACCESS_LOG="all") as service:
            await service.serving()
            for _ in range(4):
                connection = await service.connect()
                for number in range(200):
                    await connection.get(f"/api/products?limit={number + 1}")
                await connection.close()
            service.send_signal(signal.SIGTERM)
            assert await service.exit_code() == 0

            assert len(service.logged("request", path="/api/products", status=200)) == 800
