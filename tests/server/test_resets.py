"""Database connections reset during every operation: retried or 503, never 500."""

import asyncio
import json
import random
from collections import Counter

import pytest
from sqlalchemy import URL

from tests.db.support import on_servers
from tests.server.recording_client import PRODUCTS
from tests.server.relay import behind_relay
from tests.server.service import Catalog, Service

RESETS = 1000
AT_ONCE = 5


async def names_in(service: Service) -> Counter[str]:
    """Return the names of all listed products."""
    names: Counter[str] = Counter()
    path = f"{PRODUCTS}?limit=1000"
    while path:
        page = json.loads((await service.get(path)).body)
        names.update(product["name"] for product in page["products"])
        path = page["next"]
    return names


@on_servers
class TestResets:
    @pytest.mark.parametrize("fault", ["reset", "half_close", "cut"])
    async def test_reset_connection_causes_no_500_and_no_lost_or_double_create(
        self, catalog: Catalog, database_url: URL, fault: str
    ) -> None:
        async with behind_relay(catalog, database_url) as (relay, service, client):
            resets = 0
            while resets < RESETS // 3:
                for operation in client.operations:
                    # About half of the resets hit idle connections, half hit running statements.
                    if fault == "cut":
                        relay.cut_in(random.randint(1, 2000))  # noqa: S311 (not a secret)
                        resets += relay.open_connections
                    elif fault == "half_close":
                        resets += relay.half_close("client")
                    else:
                        resets += relay.reset()
                    tasks = [asyncio.create_task(operation()) for _ in range(AT_ONCE)]
                    if random.random() < 0.5:  # noqa: S311 (not a secret)
                        await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311
                        resets += relay.reset()
                    await asyncio.gather(*tasks)
            relay.heal()

            assert not client.failures
            assert service.logged("request_failed") == []
            names = await names_in(service)
            assert {name: names[name] for name in client.created} == dict.fromkeys(
                client.created, 1
            )
            assert all(names[name] <= 1 for name in client.unknown)
            # Reads, and writes that never began, are retried, so most of them succeed.
            served = sum(n for (_, status), n in client.statuses.items() if status < 500)
            assert served > 0.8 * client.statuses.total(), client.statuses
