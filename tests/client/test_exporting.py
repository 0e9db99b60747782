"""Exports of the asynchronous client, against the running service."""

import asyncio
from contextlib import aclosing

import httpx

from catalog.client import AsyncClient, Product
from tests.client.products import lamps
from tests.server.service import Catalog
from tests.support import PASSWORD

STALL_SECONDS = 2


class TestExport:
    async def test_export_streams_all_products_and_names_the_change_to_follow(
        self, ada: AsyncClient
    ) -> None:
        await ada.upload(lamps(30))

        async with ada.export(mine=True, sort="price", min_price=5) as export:
            prices = [product.price async for product in export]
            later = await ada.create("Later", 1)

        assert prices == list(range(5, 30))
        async with aclosing(ada.follow(export.change)) as changes:
            first = await anext(changes)
        assert (first.type, first.product) == ("created", later)

    async def test_line_separators_of_unicode_are_part_of_a_text(self, ada: AsyncClient) -> None:
        async with ada.export() as export:
            since = export.change
        lamp = await ada.create("a\u2028b\x85c\x0bd\x1ee", 1, "\u2029")

        async with ada.export(mine=True) as export:
            assert [product async for product in export] == [lamp]
        async with aclosing(ada.follow(since)) as changes:
            assert (await anext(changes)).product == lamp

    async def test_consumer_may_pause_longer_than_the_service_waits(self, catalog: Catalog) -> None:
        catalog.definitions["catalog.http.response_buffers"] = f"STALL_SECONDS = {STALL_SECONDS}"
        catalog.definitions["catalog.server.sockets"] = f"STALL_SECONDS = {STALL_SECONDS + 1}"
        # 11 MB, more than the buffers of a connection.
        count, description = 700, "x" * 16_000
        encoding = {"Accept-Encoding": "identity"}
        async with (
            catalog.start() as service,
            httpx.AsyncClient(headers=encoding, timeout=30) as http,
        ):
            client = AsyncClient((await service.serving()).url, http=http)
            await client.sign_up("ada", "ada@example.com", PASSWORD)
            await client.upload({**lamp, "description": description} for lamp in lamps(count))
            products: list[Product] = []

            async with client.export(sort="id") as export:
                async for product in export:
                    if not products:
                        await asyncio.sleep(STALL_SECONDS * 3)
                    products.append(product)

        assert [product.price for product in products] == list(range(count))
