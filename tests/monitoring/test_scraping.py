"""A real Prometheus scrapes a running service, and each expression has an answer."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.engines import tied_to_us
from tests.monitoring.expressions import PROMETHEUS, RULES, Found, of_dashboard, rules
from tests.server.nginx import free_ports
from tests.server.service import PATIENCE_SECONDS, Catalog, Service
from tests.support import PASSWORD

SCRAPES = 4
"""How often it looks before it is asked; two would do for a rate."""


class Prometheus:
    """A running one."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, text: str) -> list[dict[str, Any]]:
        """Evaluate an expression now; returns its series."""
        answer = await self._client.post("/api/v1/query", data={"query": text})
        assert answer.status_code == 200, answer.text
        series: list[dict[str, Any]] = answer.json()["data"]["result"]
        return series

    async def value(self, text: str) -> float:
        (series,) = await self.ask(text)
        return float(series["value"][1])

    async def rules(self) -> list[dict[str, Any]]:
        groups = (await self._client.get("/api/v1/rules")).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def ready(self) -> bool:
        try:
            return (await self._client.get("/-/ready")).status_code == 200
        except httpx.TransportError:
            return False


@asynccontextmanager
async def prometheus_of(program: Path, folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """Run Prometheus as it is shipped, but in a hurry and for a service at another place."""
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
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS) as client:
            running = Prometheus(client)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await running.ready():
                    assert process.returncode is None, (folder / "prometheus.log").read_text()
                    await asyncio.sleep(0.1)
            yield running
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def use(service: Service, username: str, *, products: int) -> None:
    """Do a little of everything, in the name of somebody new."""
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE_SECONDS) as client:
        right = {"username": username, "password": PASSWORD}
        fields = {**right, "email": f"{username}@example.com"}
        tokens = (await client.post("/api/auth/signup", json=fields)).json()
        for credentials in (right, {**right, "password": "something else"}):
            await client.post("/api/auth/login", json=credentials)
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        lamp = {"name": "Lamp", "price": 24.9}
        for number in range(products):
            key = {"Idempotency-Key": f"lamp-{number}"}
            answer = await client.post("/api/products", json=lamp, headers=key)
            assert answer.status_code == 201, answer.text
        # The last of them once more.
        assert (await client.post("/api/products", json=lamp, headers=key)).status_code == 201
        path = answer.headers["Location"]
        assert (await client.patch(path, json={"price": 20})).status_code == 200
        assert (await client.delete(path)).status_code == 200
        for asked in ("/api/products", "/api/products?limit=1", path, "/nowhere"):
            for _ in range(5):
                await client.get(asked)
        await client.get("/api/products/changes?since=0")


class TestScraping:
    async def test_each_expression_has_an_answer(
        self, prometheus: Path, catalog: Catalog, tmp_path: Path
    ) -> None:
        recorded = [rule for rule in rules() if "record" in rule]
        asked = [*of_dashboard(), *(Found(rule["record"], rule["expr"]) for rule in recorded)]
        async with catalog.start("--workers=2") as service:
            await service.serving()
            target = service.url.removeprefix("http://")
            async with prometheus_of(prometheus, tmp_path, target) as running:
                # Before it has looked and after, so that something increases.
                await use(service, "ada", products=3)
                await scraped(running, 2)
                await use(service, "bob", products=3)
                # Rules look at what was scraped before.
                await scraped(running, SCRAPES)

                silent = [str(each) for each in asked if not numbers(await running.ask(each.text))]
                state = await running.rules()

        assert not silent
        assert {rule["health"] for rule in state} == {"ok"}
        firing = [rule["name"] for rule in state if rule.get("state") == "firing"]
        assert not firing

    async def test_it_counts_what_was_done(
        self, prometheus: Path, catalog: Catalog, tmp_path: Path
    ) -> None:
        async with catalog.start("--workers=2") as service:
            await service.serving()
            target = service.url.removeprefix("http://")
            async with prometheus_of(prometheus, tmp_path, target) as running:
                await use(service, "ada", products=7)
                await scraped(running, SCRAPES)

                created = await running.value(
                    'sum(catalog_http_requests_total{route="/api/products", status="201"})'
                )
                position = await running.value("max(catalog_position)")
                workers = await running.value("sum(catalog_workers)")

        # Seven, and the last of them once more, which was then changed and deleted.
        assert created == 8
        assert position == 9
        assert workers == 2


async def scraped(running: Prometheus, times: int) -> None:
    """Wait until it has looked so many times more."""
    text = 'sum(count_over_time(up{job="catalog"}[1h])) or vector(0)'
    goal = await running.value(text) + times
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await running.value(text) < goal:
            await asyncio.sleep(0.2)


def numbers(series: list[dict[str, Any]]) -> list[float]:
    """The values that are any."""
    values = [float(each["value"][1]) for each in series]
    return [value for value in values if not math.isnan(value)]
