"""Changes that the asynchronous client follows, against the running service."""

import asyncio
from contextlib import aclosing

import httpx
import pytest

from catalog.client import AsyncClient, ChangesGone
from tests.client.conftest import FaultyTransport, problem


def stream(text: str) -> httpx.Response:
    """Return a stream of events that ends."""
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)


class TestFollow:
    async def test_changes_come_in_order_each_with_its_id(self, ada: AsyncClient) -> None:
        async with asyncio.timeout(30), aclosing(ada.follow()) as changes:
            waiting = asyncio.ensure_future(anext(changes))
            # ``follow`` begins at the newest change; until it has read that, this may be it.
            while not waiting.done():
                lamp = await ada.create("Lamp", 1)
                await asyncio.wait([waiting], timeout=0.2)
            first = await waiting
            assert first.change
        await ada.update(lamp, {"price": 2})
        await ada.delete(lamp.id)

        found = []
        async with asyncio.timeout(30), aclosing(ada.follow(first.change)) as changes:
            async for change in changes:
                found.append(change)
                if change.type == "deleted":
                    break

        positions = [change.position for change in found]
        assert positions == list(range(first.position + 1, first.position + 1 + len(found)))
        assert [change.type for change in found[-2:]] == ["updated", "deleted"]
        assert all(change.change for change in found)

    async def test_other_history_starts_over_or_is_an_error(self, ada: AsyncClient) -> None:
        lamp = await ada.create("Lamp", 1)
        calls: list[str] = []

        async def start_over() -> str:
            async with ada.export() as export:
                calls.append(export.change)
                return export.change

        with pytest.raises(ChangesGone):
            await anext(ada.follow("1.0123456789"))
        async with asyncio.timeout(30):
            async with aclosing(ada.follow("1.0123456789", start_over=start_over)) as changes:
                waiting = asyncio.ensure_future(anext(changes))
                while not calls:
                    await asyncio.sleep(0.01)
                await ada.delete(lamp)
                assert (await waiting).id == lamp.id
        assert len(calls) == 1

    async def test_interruptions_are_resumed_without_loss(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        lamp = await ada.create("Lamp", 1)
        async with ada.export() as export:
            since = export.change
        network.answers = [
            problem(503, "not-ready", {"Retry-After": "0"}),
            stream("retry: 1000\n\n:\n\n"),
            stream('event: end\ndata: {"code": "overloaded"}\n\n'),
        ]
        network.unsent = 1

        async with asyncio.timeout(30), aclosing(ada.follow(since)) as changes:
            waiting = asyncio.ensure_future(anext(changes))
            while network.answers:
                await asyncio.sleep(0.01)
            await ada.delete(lamp)
            assert (await waiting).type == "deleted"
