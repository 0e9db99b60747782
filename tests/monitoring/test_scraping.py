"""A real Prometheus scrapes a running service, and each expression returns data."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import yaml

from tests.engines import tied_to_us
from tests.monitoring.expressions import PROMETHEUS, RULES, Found, of_dashboard, rules
from tests.monitoring.running import Prometheus, numbers, scraped, use
from tests.server.nginx import free_ports
from tests.server.service import TIMEOUT_SECONDS, Catalog

SCRAPES = 4
"""Scrapes before the queries; a rate needs at least two."""


@asynccontextmanager
async def prometheus_of(program: Path, folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """Run Prometheus as shipped, but scraping every second and another target."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES / "*.yml")]
    with free_ports(1) as (port,):
        catalog, itself = config["scrape_configs"]
        del catalog["dns_sd_configs"]
        catalog["static_configs"] = [{"targets": [target]}]
        itself["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        *tied_to_us(),
        str(program),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS) as client:
            running = Prometheus(client)
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not await running.ready():
                    assert process.returncode is None, (folder / "prometheus.log").read_text()
                    await asyncio.sleep(0.1)
            yield running
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


class TestScraping:
    async def test_expressions_return_data(
        self, prometheus: Path, catalog: Catalog, tmp_path: Path
    ) -> None:
        recorded = [rule for rule in rules() if "record" in rule]
        asked = [*of_dashboard(), *(Found(rule["record"], rule["expr"]) for rule in recorded)]
        async with catalog.start("--workers=2") as service:
            await service.serving()
            target = service.url.removeprefix("http://")
            async with prometheus_of(prometheus, tmp_path, target) as running:
                # Traffic before and after a scrape, so that counters increase.
                await use(service.url, "ada", products=3)
                await scraped(running, 2)
                await use(service.url, "bob", products=3)
                # Rules are evaluated over earlier scrapes.
                await scraped(running, SCRAPES)

                silent = [str(each) for each in asked if not numbers(await running.ask(each.text))]
                state = await running.rules()

        assert not silent
        assert {rule["health"] for rule in state} == {"ok"}
        firing = [rule["name"] for rule in state if rule.get("state") == "firing"]
        assert not firing

    async def test_metrics_count_the_requests_made(
        self, prometheus: Path, catalog: Catalog, tmp_path: Path
    ) -> None:
        async with catalog.start("--workers=2") as service:
            await service.serving()
            target = service.url.removeprefix("http://")
            async with prometheus_of(prometheus, tmp_path, target) as running:
                await use(service.url, "ada", products=7)
                await scraped(running, SCRAPES)

                created = await running.value(
                    'sum(catalog_http_requests_total{route="/api/products", status="201"})'
                )
                position = await running.value("max(catalog_position)")
                workers = await running.value("sum(catalog_workers)")

        # Seven creates and a replay of the last; then an update and a delete.
        assert created == 8
        assert position == 9
        assert workers == 2
