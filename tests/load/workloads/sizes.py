"""The service on few products and on many, in turns."""

from contextlib import AsyncExitStack
from dataclasses import replace

from tests.load.contestants import (
    CATALOG,
)
from tests.load.database import Server
from tests.load.report import Results
from tests.load.ring import Ring
from tests.load.workloads.pages import hot, random_pages
from tests.load.workloads.turns import FEW, Options, Turns


async def size(options: Options, server: Server, ring: Ring, results: Results) -> None:
    """Request the first page and random ones of a tenth of the products, and of ten times."""
    async with AsyncExitStack() as stack:
        benches: dict[int, tuple[Turns, Results]] = {}
        for products in (max(options.products // 10, 1), options.products * 10):
            url = await stack.enter_async_context(server.another_database())
            own = replace(ring, database=url)
            await own.fill(products)
            catalog = await stack.enter_async_context(own.catalog())
            catalog = replace(catalog, title=f"the service with {products:,} products")
            folder = ring.folder / str(products)
            folder.mkdir()
            told = Results([], {})
            chosen = replace(
                options,
                products=products,
                rounds=1,
                connections=(options.connections or FEW)[:1],
                peers=(),
            )
            benches[products] = Turns(chosen, {CATALOG: catalog}, told, folder), told
        for _ in range(options.rounds):
            for turns, _told in benches.values():
                await hot(turns)
                await random_pages(turns)
        for products, (_turns, told) in benches.items():
            results.sizes += [(products, turn) for turn in told.turns]
