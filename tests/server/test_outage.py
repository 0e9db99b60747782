"""nginx, from the clients' point of view, while instances stop and start."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx

from tests.server.nginx import Nginx, impatient, needs_cache, needs_nginx, nginx
from tests.server.service import TIMEOUT_SECONDS, Catalog, Service

PATH = "/api/products"
CLIENTS = 20

pytestmark = [needs_nginx, needs_cache]


@asynccontextmanager
async def careless_instance() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a stub that closes connections without a response; yield its address and the requests."""
    taken: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.readuntil(b"\r\n\r\n"))
        writer.transport.abort()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        # max_fails=0: nginx never marks it as failed.
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]} max_fails=0", taken


@asynccontextmanager
async def busy_instance() -> AsyncIterator[str]:
    """Run a stub that answers clients but is too busy to answer polls of its position."""
    answer = b"HTTP/1.1 200\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET"):
                writer.write(answer)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def hasty(text: str) -> str:
    """Count slow polls as failures of the instance: the control."""
    look = "proxy_pass http://catalog/api/products?limit=1&fields=id;"
    assert "location = /position" not in text or look in text
    return text.replace(look, f"proxy_read_timeout 200ms; {look}")


def spare(service: Service) -> str:
    """Return the upstream that nginx uses only when another one has failed."""
    return f"{service.url} backup"


async def statuses(client: httpx.AsyncClient) -> list[int]:
    """Return the statuses of requests over two seconds, in which nginx polls forty times."""
    found = []
    for _ in range(CLIENTS):
        found.append((await client.get("/livez")).status_code)
        await asyncio.sleep(0.1)
    return found


async def create_product(
    client: httpx.AsyncClient, token: str, name: str, key: str | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    if key is not None:
        headers["Idempotency-Key"] = key
    return await client.post(PATH, json={"name": name, "price": 1}, headers=headers)


async def names(client: httpx.AsyncClient) -> list[str]:
    shown = await client.get(PATH, params={"limit": 1000}, headers={"Cache-Control": "no-cache"})
    return sorted(product["name"] for product in shown.json()["products"])


def client_of(proxy: Nginx) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=proxy.url, timeout=40)


class TestNoInstance:
    async def test_requests_wait_for_the_next_instance(self, catalog: Catalog) -> None:
        async with catalog.start() as first:
            await first.serving()
            bind, token = first.url.removeprefix("http://"), await first.sign_up()
            async with nginx(first.url) as proxy, client_of(proxy) as anyone:
                await proxy.caching()
                await first.end()

                asked = [
                    *(asyncio.create_task(anyone.get(PATH)) for _ in range(CLIENTS)),
                    *(
                        asyncio.create_task(create_product(anyone, token, f"Lamp {n}"))
                        for n in range(3)
                    ),
                    asyncio.create_task(create_product(anyone, token, "Rug", key="1")),
                ]
                done, _ = await asyncio.wait(asked, timeout=1)
                assert not done
                async with catalog.start(f"--bind={bind}") as second:
                    await second.serving()
                    answers = await asyncio.gather(*asked)

                    statuses = [answer.status_code for answer in answers]
                    assert statuses == [200] * CLIENTS + [201] * 4
                    assert await names(anyone) == ["Lamp 0", "Lamp 1", "Lamp 2", "Rug"]

    async def test_requests_without_an_instance_time_out(self, catalog: Catalog) -> None:
        async with catalog.start() as service:
            await service.serving()
            async with nginx(service.url, edit=impatient) as proxy, client_of(proxy) as anyone:
                await proxy.caching()
                await service.end()

                # The first request waits; after its time-out, later ones are refused at once.
                for _ in range(2):
                    answer = await anyone.get(PATH)
                    assert answer.status_code == 503
                    assert answer.json()["code"] == "overloaded"
                    assert answer.headers["retry-after"] == "1"
                took = answer.elapsed.total_seconds()
                assert took < 1.8, "It was not told at once."


class TestBusyInstances:
    async def test_busy_instance_is_not_marked_as_failed(self) -> None:
        async with (
            busy_instance() as one,
            busy_instance() as other,
            nginx(one, other) as proxy,
            client_of(proxy) as anyone,
        ):
            assert set(await statuses(anyone)) == {200}

    async def test_control_busy_instance_is_marked_as_failed_by_poll_time_outs(self) -> None:
        async with (
            busy_instance() as one,
            busy_instance() as other,
            nginx(one, other, edit=hasty) as proxy,
            client_of(proxy) as anyone,
        ):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while 503 not in await statuses(anyone):
                    pass


class TestFailingInstance:
    async def test_read_is_retried_on_another_instance(self, catalog: Catalog) -> None:
        async with catalog.start() as service, careless_instance() as (url, taken):
            await service.serving()
            async with nginx(url, spare(service)) as proxy, client_of(proxy) as anyone:
                for limit in range(1, CLIENTS + 1):
                    answer = await anyone.get(PATH, params={"limit": limit})
                    assert answer.status_code == 200
        assert any(b"limit=20 " in head for head in taken)

    async def test_create_is_retried_on_another_instance_with_a_key_only(
        self, catalog: Catalog
    ) -> None:
        async with catalog.start() as service, careless_instance() as (url, taken):
            await service.serving()
            token = await service.sign_up()
            async with nginx(url, spare(service)) as proxy, client_of(proxy) as ada:
                keyed = await create_product(ada, token, "Keyed", key="1")
                bare = await create_product(ada, token, "Bare")

                posts = [head for head in taken if head.startswith(b"POST")]
                assert [b"dempotency-" in head for head in posts] == [True, False]
                assert keyed.status_code == 201
                # It is tried once, because it may have been carried out.
                assert bare.status_code == 503
                assert await names(ada) == ["Keyed"]
