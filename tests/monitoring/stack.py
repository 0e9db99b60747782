"""Check of a running stack: make requests, then evaluate every dashboard expression.

    docker compose --profile monitoring up -d
    .venv/bin/python -m tests.monitoring.stack

It creates accounts and products there. Exits with 1 when an expression has no data, a rule fails,
or the number of instances is not that of ``--instances``.
"""

import argparse
import asyncio
import sys
from uuid import uuid4

import httpx

from tests.monitoring.expressions import Found, of_dashboard, rules
from tests.monitoring.running import Prometheus, numbers, scraped, use

TARGETS_TIMEOUT_SECONDS = 60


async def ask(service: str, prometheus: str, instances: int) -> list[str]:
    """Make requests, evaluate all expressions and return the faults."""
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    asked = [*of_dashboard(), *(Found(name, name) for name in recorded)]
    async with httpx.AsyncClient(base_url=prometheus, timeout=30) as client:
        running = Prometheus(client)
        async with asyncio.timeout(TARGETS_TIMEOUT_SECONDS):
            while await running.value('sum(up{job="catalog"}) or vector(0)') != instances:
                await asyncio.sleep(1)
        # Traffic before and after a scrape, so that counters increase.
        for _ in range(2):
            await use(service, f"stack-{uuid4().hex[:12]}", products=5)
            await scraped(running, 3 * instances, within=120)
        silent = [
            f"no answer: {each}" for each in asked if not numbers(await running.ask(each.text))
        ]
        failing = [
            f"fails: {rule['name']}" for rule in await running.rules() if rule["health"] != "ok"
        ]
        print(f"{len(asked)} expressions asked of {instances} instances")  # noqa: T201 (its report)
    return [*(f"no answer: {each}" for each in silent), *(f"fails: {name}" for name in failing)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--service", default="http://127.0.0.1:8080")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--instances", type=int, default=1)
    told = parser.parse_args()
    wrong = asyncio.run(ask(told.service, told.prometheus, told.instances))
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
