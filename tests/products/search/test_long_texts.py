"""Latency of the event loop while many long texts are tokenized."""

import asyncio

from catalog.products.models import MAX_DESCRIPTION
from tests.db.support import on_sqlite
from tests.support import Caller
from tests.watchdog import Watchdog

HAN = "".join(chr(0x4E00 + number % 20_000) for number in range(MAX_DESCRIPTION))
LONG = [{"name": f"Lamp {number}", "price": 1, "description": HAN} for number in range(60)]


@on_sqlite
class TestLongTexts:
    async def test_import_of_long_texts_does_not_block_the_event_loop(self, ada: Caller) -> None:
        lines = b"".join(
            b'{"name":"%b","price":1,"description":"%b"}\n'
            % (str(each["name"]).encode(), HAN.encode())
            for each in LONG
        )
        headers = {"Content-Type": "application/x-ndjson"}
        await ada.post("/api/products", data=b"", headers=headers)

        with Watchdog():
            answer = await ada.post("/api/products", data=lines, headers=headers)

        assert answer.json["created"] == len(LONG)

    async def test_creates_of_long_texts_do_not_block_the_event_loop(self, ada: Caller) -> None:
        await ada.create_product("Lamp")

        with Watchdog():
            answers = await asyncio.gather(
                *(ada.post("/api/products", json=each) for each in LONG[:20])
            )

        assert {answer.status_code for answer in answers} == {201}
