"""nginx without requests: no polls, and pages that are as fresh as with them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from tests.server.nginx import Edit, Nginx, needs_cache, needs_nginx, nginx
from tests.server.service import TIMEOUT_SECONDS
from tests.support import until

PATH = "/api/products"
QUIET_SECONDS = 1.5
"""Longer than the time after which nginx stops polling here."""

pytestmark = [needs_nginx, needs_cache]


class Instance:
    """A stub of the service whose page shows its position.

    Attributes:
        position: the last change.
        polls: number of polls of the position so far.
    """

    def __init__(self) -> None:
        self.position = 1
        self.polls = 0
        self._port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen, always on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections."""
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            is_poll = head.startswith(b"HEAD")
            self.polls += is_poll
            body = b"" if is_poll else json.dumps({"position": self.position}).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Catalog-Change: %d.k3f9x2\r\nContent-Length: %d\r\n\r\n%b"
                % (self.position, len(body), body)
            )
            await writer.drain()
        writer.close()

    async def quiet(self) -> None:
        """Wait until nginx does not poll any more."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            before = -1
            while before != self.polls:
                before = self.polls
                await asyncio.sleep(QUIET_SECONDS)


@asynccontextmanager
async def shop(edit: Edit | None = None) -> AsyncIterator[tuple[Instance, Nginx]]:
    """Run an instance and nginx in front of it, which has it polled and cached a page."""
    instance = Instance()
    await instance.start()
    # max_fails=0: nginx never marks it as failed.
    edits = brief if edit is None else lambda text: edit(brief(text))
    async with nginx(f"{instance.url} max_fails=0", edit=edits) as proxy:
        await proxy.caching()
        yield instance, proxy
    await instance.stop()


def client_of(proxy: Nginx) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=proxy.url, timeout=TIMEOUT_SECONDS)


def brief(text: str) -> str:
    """Let nginx stop polling after half a second instead of five."""
    assert "IDLE_MS = 5000;" in text or "IDLE_MS" not in text
    return text.replace("IDLE_MS = 5000;", "IDLE_MS = 500;")


def lasting(text: str) -> str:
    """Keep generations although nothing is polled: the control."""
    text = text.replace("MAX_AGE_MS = 200", "MAX_AGE_MS = 60000").replace(
        "ngx.shared.catalog_generation.delete('any');", ""
    )
    return text.replace("type=number timeout=200ms", "type=number timeout=60s")


async def shown(client: httpx.AsyncClient) -> int:
    """Return the position that the page shows."""
    position: int = (await client.get(PATH)).json()["position"]
    return position


async def test_nginx_polls_only_while_pages_are_requested() -> None:
    async with shop() as (instance, proxy), client_of(proxy) as anyone:
        await instance.quiet()
        before = instance.polls

        async def ask() -> None:
            while instance.polls < before + 10:
                await anyone.get(PATH)
                await asyncio.sleep(0.01)

        await asyncio.wait_for(ask(), TIMEOUT_SECONDS)
        await instance.quiet()


@pytest.mark.parametrize(("edit", "sees"), [(None, 2), (lasting, 1)], ids=["shipped", "control"])
async def test_first_page_after_a_pause_includes_changes_that_bypassed_nginx(
    edit: Edit | None, sees: int
) -> None:
    async with shop(edit) as (instance, proxy), client_of(proxy) as anyone:
        # Stored at its second request.
        assert [await shown(anyone) for _ in range(2)] == [1, 1]
        await instance.quiet()
        instance.position = 2

        assert await shown(anyone) == sees


async def test_requests_wait_for_an_instance_that_stopped_during_a_pause() -> None:
    async with shop() as (instance, proxy), client_of(proxy) as anyone:
        await instance.quiet()
        await instance.stop()

        asked = [asyncio.create_task(anyone.get(PATH)) for _ in range(5)]
        waited = await asyncio.wait(asked, timeout=1)
        assert not waited[0]
        await instance.start()

        assert {(await each).status_code for each in asked} == {200}


async def test_outage_is_followed_without_requests() -> None:
    async with shop() as (instance, proxy), client_of(proxy) as anyone:
        await instance.quiet()
        await instance.stop()
        asked = asyncio.create_task(anyone.get(PATH))
        await asyncio.sleep(QUIET_SECONDS)
        asked.cancel()
        before = instance.polls

        # Without a request nginx notices that the instance is back.
        await instance.start()

        await until(lambda: instance.polls > before)
        await instance.quiet()
