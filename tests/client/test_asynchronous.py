"""The asynchronous client against the running service."""

import asyncio
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from catalog.client import (
    AsyncClient,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    Product,
    ProductChanges,
    RateLimited,
    Unavailable,
    UnexpectedResponse,
)
from tests.client.conftest import FaultyTransport, problem
from tests.client.products import lamps, names_of
from tests.server.service import Service


class TestProducts:
    async def test_products_come_from_all_pages_in_order(self, ada: AsyncClient) -> None:
        await ada.upload(lamps(25))

        found = [product async for product in ada.products(mine=True, sort="price", page_size=10)]

        assert [product.price for product in found] == list(range(25))
        cheap = ada.products(mine=True, max_price=3, q="lamp", page_size=2)
        assert {product.price async for product in cheap} == {0, 1, 2, 3}

    async def test_token_is_not_sent_for_public_lists(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        lamp = await ada.create("Lamp", 1)
        network.requests.clear()

        assert [product.id async for product in ada.products(ids=[lamp.id])] == [lamp.id]
        assert [product async for product in ada.products(ids=[])] == []
        assert [product async for product in ada.products(key="")] == []
        assert (await ada.get(lamp.id)) == lamp

        assert all("authorization" not in request.headers for request in network.requests)

    async def test_link_to_another_host_is_not_followed(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        page = {"products": [], "next": "http://elsewhere.example/api/products?cursor=x"}
        network.answers = [httpx.Response(200, json=page)]

        with pytest.raises(UnexpectedResponse):
            await names_of(ada)

        assert len(network.requests) == 1

    async def test_product_is_found_by_its_own_key(self, ada: AsyncClient) -> None:
        lamp = await ada.create("Lamp", 1, key="sku-1")
        assert lamp.key == "sku-1"

        assert [product async for product in ada.products(mine=True, key="sku-1")] == [lamp]
        with pytest.raises(Conflict):
            await ada.create("Another", 1, key="sku-1")
        assert (await ada.update(lamp, {"key": None})).key is None

    async def test_missing_product_is_not_found(self, ada: AsyncClient) -> None:
        with pytest.raises(NotFound):
            await ada.get(2**62)
        with pytest.raises(NotFound):
            await ada.delete(2**62)

    async def test_invalid_product_names_its_faults(self, ada: AsyncClient) -> None:
        with pytest.raises(Invalid) as caught:
            await ada.create("", -1)

        assert [fault.name for fault in caught.value.faults] == ["/name", "/price"]


class TestCreate:
    async def test_lost_response_creates_nothing_twice(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        network.lost = 2

        lamp = await ada.create("Lamp", 24.9, "Warm light.")

        assert network.paths() == ["POST /api/products"] * 3
        assert (lamp.name, lamp.price, lamp.description) == ("Lamp", 24.9, "Warm light.")
        assert await names_of(ada) == ["Lamp"]

    async def test_retry_without_a_key_creates_twice(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        """The negative control of the test above."""
        network.lost = 1

        await ada.send("POST", "/api/products", json={"name": "Lamp", "price": 1})

        assert await names_of(ada) == ["Lamp", "Lamp"]

    async def test_request_that_may_not_be_repeated_is_not(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        network.lost = 1

        with pytest.raises(ConnectionFailed):
            await ada.create_api_key("reports")

        assert network.paths() == ["POST /api/auth/keys"]
        network.unsent = 2
        assert (await ada.create_api_key("reports")).name == "reports"

    async def test_retry_waits_as_long_as_the_service_asks(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        network.answers = [
            problem(429, "rate-limited", {"Retry-After": "1"}),
            problem(503, "overloaded", {"Retry-After": "0"}),
            problem(409, "idempotency-key-in-use", {"Retry-After": "0"}),
            httpx.Response(502, text="<h1>Bad Gateway</h1>"),
            httpx.Response(503, text="<h1>Service Unavailable</h1>"),
        ]
        loop = asyncio.get_running_loop()
        began = loop.time()

        await ada.create("Lamp", 1)

        assert loop.time() - began >= 1
        keys = {request.headers["Idempotency-Key"] for request in network.requests}
        assert (len(network.requests), len(keys)) == (6, 1)

    async def test_wait_beyond_the_retries_is_an_error_at_once(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        network.answers = [problem(429, "rate-limited", {"Retry-After": "60"})]

        with pytest.raises(RateLimited) as caught:
            await ada.create("Lamp", 1)

        assert caught.value.retry_after == 60
        assert len(network.requests) == 1

    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [(409, "conflict", Conflict), (422, "invalid", Invalid), (403, "forbidden", Forbidden)],
    )
    async def test_refusal_is_not_repeated(
        self,
        ada: AsyncClient,
        network: FaultyTransport,
        status: int,
        code: str,
        kind: type[Exception],
    ) -> None:
        network.answers = [problem(status, code)]

        with pytest.raises(kind):
            await ada.create("Lamp", 1)

        assert len(network.requests) == 1


class TestUpdate:
    async def test_product_that_was_changed_meanwhile_is_not_overwritten(
        self, ada: AsyncClient
    ) -> None:
        lamp = await ada.create("Lamp", 1)
        newer = await ada.update(lamp.id, {"price": 2})

        with pytest.raises(PreconditionFailed) as caught:
            await ada.update(lamp, {"price": 3})

        assert caught.value.current == newer
        assert caught.value.current is not None
        assert caught.value.current.etag == newer.etag
        assert (await ada.get(lamp.id)).price == 2

    async def test_merge_loses_no_increment_of_many_at_once(self, ada: AsyncClient) -> None:
        lamp = await ada.create("Lamp", 0)

        def one_more(current: Product) -> ProductChanges:
            return {"price": current.price + 1}

        await asyncio.gather(*(ada.update(lamp, {"price": 1}, merge=one_more) for _ in range(10)))

        changed = await ada.get(lamp.id)
        assert (changed.price, changed.version) == (10, 11)

    async def test_merge_gets_the_current_product_from_the_refusal(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        lamp = await ada.create("Lamp", 1)
        await ada.update(lamp, {"price": 2})
        network.requests.clear()

        await ada.update(lamp, {"price": 3}, merge=lambda _: {"price": 4})

        assert [request.method for request in network.requests] == ["PATCH", "PATCH"]

    async def test_merge_may_give_up(self, ada: AsyncClient) -> None:
        lamp = await ada.create("Lamp", 1)
        await ada.update(lamp, {"price": 2})

        with pytest.raises(PreconditionFailed):
            await ada.update(lamp, {"price": 3}, merge=lambda _: None)

    async def test_product_of_a_list_is_changed_under_the_same_condition(
        self, ada: AsyncClient
    ) -> None:
        await ada.create("Lamp", 1)
        (listed,) = [product async for product in ada.products(mine=True)]
        assert listed.etag is None

        changed = await ada.update(listed, {"description": "Warm light."})

        assert (changed.description, changed.version) == ("Warm light.", 2)
        with pytest.raises(PreconditionFailed):
            await ada.update(listed, {"price": 9})

    async def test_lost_response_is_no_conflict(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        lamp = await ada.create("Lamp", 1)
        network.lost = 1

        changed = await ada.update(lamp, {"price": 2})

        assert (changed.price, changed.version) == (2, 2)
        network.lost = 1
        await ada.delete(changed)
        with pytest.raises(NotFound):
            await ada.delete(changed)


class TestSend:
    @pytest.mark.parametrize(
        ("path", "options", "media_type"),
        [
            ("/api/products", {}, "application/json"),
            ("/api/products", {"params": {"format": "csv"}}, "text/csv"),
            ("/api/products?format=ndjson", {}, "application/x-ndjson"),
            ("/api/products?format=json", {"headers": {"Accept": "text/csv"}}, "application/json"),
            ("/api/products", {"headers": {"accept": "text/csv"}}, "text/csv"),
            ("/api/products", {"headers": {"ACCEPT": "Text/CSV; header=present"}}, "text/csv"),
            ("/api/products", {"headers": {"Accept": "text/csv, */*;q=0.1"}}, "text/csv"),
            ("/api/products", {"headers": {"Accept": "text/*"}}, "text/csv"),
            ("/api/products", {"headers": {"Accept": "*/*"}}, "application/json"),
            ("/metrics", {"headers": {"Accept": "*/*"}}, "text/plain"),
        ],
    )
    async def test_success_has_the_media_type_asked_for(
        self, ada: AsyncClient, path: str, options: dict[str, Any], media_type: str
    ) -> None:
        answer = await ada.send("GET", path, **options)

        assert answer.headers["Content-Type"].partition(";")[0] == media_type

    @pytest.mark.parametrize(
        "options",
        [{}, {"params": {"format": "csv"}}, {"headers": {"accept": "text/csv, application/json"}}],
    )
    async def test_success_of_another_media_type_is_unexpected(
        self, ada: AsyncClient, network: FaultyTransport, options: dict[str, Any]
    ) -> None:
        network.answers = [httpx.Response(200, html="<h1>Welcome to the Wi-Fi</h1>")]

        with pytest.raises(UnexpectedResponse):
            await ada.send("GET", "/api/products", **options)


class TestUnavailable:
    async def test_refused_connection_raises_connection_failed(self) -> None:
        async with AsyncClient("http://127.0.0.1:9", retry_seconds=0.3) as client:
            with pytest.raises(ConnectionFailed) as caught:
                await client.get(1)

        assert caught.value.was_repeated

    async def test_page_of_a_proxy_is_unexpected(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        network.answers = [httpx.Response(403, text="<h1>No</h1>")]

        with pytest.raises(UnexpectedResponse):
            await ada.get(1)

    @pytest.mark.parametrize("media_type", ["text/html; charset=utf-8", "application/xml"])
    async def test_success_of_another_media_type_is_unexpected(
        self, ada: AsyncClient, network: FaultyTransport, media_type: str
    ) -> None:
        def page() -> httpx.Response:
            headers = {"Content-Type": media_type}
            return httpx.Response(200, headers=headers, text="<h1>Welcome to the Wi-Fi</h1>")

        network.answers = [page(), page(), page()]
        with pytest.raises(UnexpectedResponse):
            await ada.me()
        with pytest.raises(UnexpectedResponse):
            async with ada.export():
                pytest.fail("It was accepted.")
        with pytest.raises(UnexpectedResponse):
            await anext(ada.follow("0"))

    async def test_follower_outlasts_a_proxy_without_a_service(
        self, running: Service, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        lamp = await ada.create("Lamp", 1)
        async with ada.export() as export:
            since = export.change
        async with httpx.AsyncClient(transport=network) as http:
            # Without retries each attempt is an error that the follower itself has to bear.
            client = AsyncClient(running.url, http=http, retry_seconds=0)
            network.answers = [
                httpx.Response(status, text="<h1>No instance</h1>") for status in (502, 503, 504)
            ]

            async with asyncio.timeout(30), aclosing(client.follow(since)) as changes:
                waiting = asyncio.ensure_future(anext(changes))
                while network.answers:
                    await asyncio.sleep(0.01)
                await ada.delete(lamp)
                assert (await waiting).type == "deleted"

    async def test_persistent_503_raises_unavailable(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        network.answers = [problem(503, "database-unavailable", {"Retry-After": "60"})]

        with pytest.raises(Unavailable):
            await ada.get(1)

    async def test_service_under_a_path_is_found(
        self, running: Service, network: FaultyTransport
    ) -> None:
        page: dict[str, object] = {"products": [], "next": "/shop/api/products?cursor=x"}
        end: dict[str, object] = {"products": [], "next": None}
        async with httpx.AsyncClient(transport=network) as http:
            client = AsyncClient(f"{running.url}/shop/", http=http)
            network.answers = [httpx.Response(200, json=page), httpx.Response(200, json=end)]

            assert [product async for product in client.products()] == []

        assert network.paths() == ["GET /shop/api/products"] * 2
