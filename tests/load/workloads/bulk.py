"""Imports and exports over HTTP; ``tests/load/import_turns.py`` compares them with LOAD DATA."""

import asyncio
import time
from collections.abc import Awaitable, Iterable

import click
import httpx

from catalog.products.bulk.formats import NDJSON
from catalog.products.seed_data import make_samples
from tests.load.contestants import Contestant
from tests.load.workloads.turns import Turns, say

TEXT = ("name", "description", "price")
IMPORTED_SHARE = 10
"""One in so many products that are there is imported in each round."""

TIMEOUT_SECONDS = 600


async def import_products(turns: Turns) -> None:
    """Import products as NDJSON, in chunks."""
    rows = max(1000, turns.options.products // IMPORTED_SHARE)
    for _ in range(turns.options.rounds):
        for name in turns.services:
            contestant = turns.contestants[name]
            sending = asyncio.to_thread(_import, contestant, turns.token(contestant), rows)
            await _measure(turns, "import", contestant, sending)


async def export(turns: Turns) -> None:
    """Export all products as NDJSON."""
    for _ in range(turns.options.rounds):
        for name in turns.services:
            contestant = turns.contestants[name]
            await _measure(turns, "export", contestant, asyncio.to_thread(_export, contestant))


async def _measure(
    turns: Turns, workload: str, contestant: Contestant, moving: Awaitable[int]
) -> None:
    used, began = contestant.cpu_seconds(), time.perf_counter()
    try:
        rows = await moving
    except (httpx.HTTPError, click.ClickException) as error:
        say(f"{contestant.title}: {error!r}")
        return
    seconds = time.perf_counter() - began
    cpu_us = (contestant.cpu_seconds() - used) / max(rows, 1) * 1e6
    turns.record(workload, contestant, {"rows/s": rows / seconds, "CPU µs a row": cpu_us})
    await contestant.quiet()


def _import(contestant: Contestant, token: str, rows: int) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": NDJSON.media_type}
    answer = httpx.post(
        f"{contestant.url}/api/products",
        content=_lines(rows),
        headers=headers,
        timeout=TIMEOUT_SECONDS,
    )
    told = answer.json()
    if answer.status_code != 200 or told["failed"]:
        raise click.ClickException(f"The import failed: {told}")
    created: int = told["created"]
    return created


def _lines(rows: int) -> Iterable[bytes]:
    writer = NDJSON.writer(TEXT)
    yield writer.head()
    for products in make_samples(rows, owner_ids=[1], seed=1):
        yield writer.write([(each.name, each.description, each.price) for each in products])


def _export(contestant: Contestant) -> int:
    rows = 0
    headers = {"Accept": NDJSON.media_type}
    url = f"{contestant.url}/api/products"
    with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS) as answer:
        answer.raise_for_status()
        for piece in answer.iter_raw():
            rows += piece.count(b"\n")
    return rows
