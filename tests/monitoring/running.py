"""Client of a running Prometheus, and traffic for the service that it scrapes."""

import asyncio
import math
from typing import Any

import httpx

from tests.server.service import TIMEOUT_SECONDS
from tests.support import PASSWORD


class Prometheus:
    """HTTP API client of a running Prometheus."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, text: str) -> list[dict[str, Any]]:
        """Evaluate an expression at the current time and return its series."""
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


async def use(url: str, username: str, *, products: int) -> None:
    """Make a few requests of every kind with a new account."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS) as client:
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
        # A replay of the last create.
        assert (await client.post("/api/products", json=lamp, headers=key)).status_code == 201
        path = answer.headers["Location"]
        assert (await client.patch(path, json={"price": 20})).status_code == 200
        assert (await client.delete(path)).status_code == 200
        for asked in ("/api/products", "/api/products?limit=1", path, "/nowhere"):
            for _ in range(5):
                await client.get(asked)
        await client.get("/api/products/changes?since=0")


async def scraped(running: Prometheus, times: int, *, within: float = TIMEOUT_SECONDS) -> None:
    """Wait for ``times`` more scrapes, summed over all instances."""
    text = 'sum(count_over_time(up{job="catalog"}[1h])) or vector(0)'
    goal = await running.value(text) + times
    async with asyncio.timeout(within):
        while await running.value(text) < goal:
            await asyncio.sleep(0.2)


def numbers(series: list[dict[str, Any]]) -> list[float]:
    """Return the values that are not NaN."""
    values = [float(each["value"][1]) for each in series]
    return [value for value in values if not math.isnan(value)]
