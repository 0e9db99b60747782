"""The asynchronous client against the running service."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from catalog.client import (
    AsyncClient,
    ChangesGone,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Invalid,
    NewProduct,
    NotFound,
    PreconditionFailed,
    Product,
    ProductChanges,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnexpectedResponse,
    UploadInterrupted,
    UploadReport,
    UpsertedProduct,
    uploading,
)
from catalog.client.credentials import SessionCredentials
from tests.client.conftest import FaultyTransport, name, problem
from tests.client.test_package import examples
from tests.server.service import Catalog, Service
from tests.support import PASSWORD

KILLS = 4
STALL_SECONDS = 2


async def names_of(client: AsyncClient) -> list[str]:
    return [product.name async for product in client.products(mine=True, sort="id")]


def lamps(count: int) -> Iterator[NewProduct]:
    return ({"name": f"Lamp {number}", "price": number} for number in range(count))


class TestSession:
    async def test_password_logs_in_when_it_is_needed(
        self, running: Service, ada: AsyncClient
    ) -> None:
        username = (await ada.me()).username

        async with AsyncClient(running.url, username=username, password=PASSWORD) as client:
            assert [product async for product in client.products(page_size=1, ids=[1])] == []
            assert (await client.me()).username == username
            await client.log_out()
            with pytest.raises(Unauthenticated) as caught:
                await client.me()

        assert (caught.value.code, caught.value.status) == ("token-missing", 401)

    async def test_wrong_password_is_unauthenticated(self, running: Service) -> None:
        async with AsyncClient(running.url, username="nobody", password="wrong one") as client:
            with pytest.raises(Unauthenticated) as caught:
                await client.me()

        assert caught.value.code == "credentials-wrong"
        assert caught.value.request_id

    async def test_expired_token_is_refreshed_once_however_many_requests_wait(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        credentials = ada._transport.credentials
        assert isinstance(credentials, SessionCredentials)
        credentials._access = "expired"

        accounts = await asyncio.gather(*(ada.me() for _ in range(50)))

        assert len({account.id for account in accounts}) == 1
        assert network.paths().count("POST /api/auth/refresh") == 1
        assert network.paths().count("POST /api/auth/login") == 0

    async def test_failed_refresh_is_sent_once_for_all_that_wait(
        self, running: Service, network: FaultyTransport
    ) -> None:
        async with httpx.AsyncClient(transport=network) as http:
            client = AsyncClient(running.url, refresh_token="x", http=http)

            outcomes = await asyncio.gather(
                *(client.me() for _ in range(20)), return_exceptions=True
            )

        assert {type(outcome) for outcome in outcomes} == {Unauthenticated}
        assert network.paths() == ["POST /api/auth/refresh"]

    async def test_ended_session_is_replaced_by_another_with_the_password(
        self, running: Service, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        username = (await ada.me()).username
        async with AsyncClient(running.url, username=username, password=PASSWORD) as other:
            await other.send("POST", "/api/auth/logout-all")
        network.requests.clear()

        assert (await ada.me()).username == username

        assert network.paths().count("POST /api/auth/login") == 1

    async def test_cancelled_request_does_not_cancel_the_refresh_of_others(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        credentials = ada._transport.credentials
        assert isinstance(credentials, SessionCredentials)
        credentials._access = ""
        first = asyncio.create_task(ada.me())
        others = [asyncio.create_task(ada.me()) for _ in range(5)]
        while credentials._renewal is None:
            await asyncio.sleep(0)

        first.cancel()

        await asyncio.gather(*others)
        assert network.paths().count("POST /api/auth/refresh") == 1

    async def test_api_key_signs_in_within_its_scope(
        self, running: Service, ada: AsyncClient
    ) -> None:
        expires_at = datetime.now(UTC) + timedelta(hours=1)
        key = await ada.create_api_key("reports", expires_at=expires_at)
        assert key.key
        assert key.key not in repr(key)
        assert key.expires_at == expires_at

        async with AsyncClient(running.url, key=key.key) as program:
            assert (await program.me()).id == (await ada.me()).id
            with pytest.raises(Forbidden) as caught:
                await program.create("Lamp", 1)
            assert caught.value.code == "scope-insufficient"
            assert [each.name for each in await ada.api_keys()] == ["reports"]
            await ada.revoke_api_key(key.id)
            with pytest.raises(Unauthenticated):
                await program.me()


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

    async def test_wait_beyond_the_patience_is_an_error_at_once(
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


class TestUpload:
    async def test_upload_takes_any_iterable_and_tells_its_progress(
        self, ada: AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploading, "UPLOAD_LINES", 10)
        reports: list[UploadReport] = []

        async def slowly() -> AsyncIterator[NewProduct]:
            for lamp in lamps(7):
                yield lamp

        report = await ada.upload(lamps(25), progress=reports.append)
        await ada.upload(slowly())
        await ada.upload([])

        assert [each.created for each in reports] == [10, 20, 25]
        assert report == reports[-1]
        assert len(await names_of(ada)) == 32

    async def test_faulty_lines_are_reported_by_their_number(
        self, ada: AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploading, "UPLOAD_LINES", 10)
        products = list(lamps(25))
        products[3]["name"] = ""
        products[21]["price"] = -1

        report = await ada.upload(products)

        assert (report.created, report.failed) == (23, 2)
        assert [(each.line, each.pointer) for each in report.errors] == [
            (4, "/name"),
            (22, "/price"),
        ]

    async def test_upsert_is_repeated_until_it_is_done_and_changes_nothing_twice(
        self, ada: AsyncClient, network: FaultyTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploading, "UPLOAD_LINES", 10)

        def keyed(price: float) -> Iterator[UpsertedProduct]:
            return ({"key": f"sku-{n}", "name": f"Lamp {n}", "price": price} for n in range(25))

        network.lost = 1
        first = await ada.upload(keyed(1), mode="upsert")
        again = await ada.upload(keyed(1), mode="upsert")
        raised = await ada.upload(keyed(2), mode="upsert")

        # The answer about the first ten was lost; the repeated request found them in place.
        assert (first.created, first.unchanged, first.failed) == (15, 10, 0)
        assert (again.created, again.updated, again.unchanged) == (0, 0, 25)
        assert (raised.updated, raised.failed) == (25, 0)
        assert len(await names_of(ada)) == 25

    async def test_upsert_of_products_without_names_is_not_repeated(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        network.lost = 1

        with pytest.raises(UploadInterrupted):
            await ada.upload(lamps(3), mode="upsert")

        assert len(await names_of(ada)) == 3

    async def test_interrupted_upload_tells_what_is_known(
        self, ada: AsyncClient, network: FaultyTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploading, "UPLOAD_LINES", 10)
        network.answers = [problem(503, "overloaded", {"Retry-After": "0"})]

        def lose(report: UploadReport) -> None:
            network.lost = int(report.created == 20)

        with pytest.raises(UploadInterrupted) as caught:
            await ada.upload(lamps(50), progress=lose)

        assert (caught.value.lines, caught.value.report.created) == (20, 20)
        assert len(await names_of(ada)) == 30

    @pytest.mark.parametrize("product", [None, {"name": "Lamp", "price": float("nan")}])
    async def test_error_of_the_iterable_passes_with_a_note_of_what_was_done(
        self, ada: AsyncClient, monkeypatch: pytest.MonkeyPatch, product: Any
    ) -> None:
        monkeypatch.setattr(uploading, "UPLOAD_LINES", 10)
        reports: list[UploadReport] = []

        def broken() -> Iterator[NewProduct]:
            yield from lamps(25)
            if product is not None:
                yield product
            raise ValueError("Line 26 of the file is damaged.")

        with pytest.raises(ValueError, match=r"damaged|JSON compliant") as caught:
            await ada.upload(broken(), progress=reports.append)

        assert caught.value.__notes__ == [
            "The upload ended after 20 products: 20 created, 0 updated, 0 unchanged, 0 failed."
        ]
        assert reports[-1].created == len(await names_of(ada)) == 20

    async def test_error_of_the_progress_passes_with_a_note_of_what_was_done(
        self, ada: AsyncClient
    ) -> None:
        def fail(_: UploadReport) -> None:
            raise BrokenPipeError

        with pytest.raises(BrokenPipeError) as caught:
            await ada.upload(lamps(2), progress=fail)

        assert "2 created" in caught.value.__notes__[0]


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
    async def test_service_that_is_gone_is_a_failed_connection(
        self,
    ) -> None:
        async with AsyncClient("http://127.0.0.1:9", patience=0.3) as client:
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
            # Without patience each attempt is an error that the follower itself has to bear.
            client = AsyncClient(running.url, http=http, patience=0)
            network.answers = [
                httpx.Response(status, text="<h1>No instance</h1>") for status in (502, 503, 504)
            ]

            async with asyncio.timeout(30), aclosing(client.follow(since)) as changes:
                waiting = asyncio.ensure_future(anext(changes))
                while network.answers:
                    await asyncio.sleep(0.01)
                await ada.delete(lamp)
                assert (await waiting).type == "deleted"

    async def test_service_that_stays_unavailable_is_said_to_be(
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


class TestMirror:
    async def test_mirror_stays_equal_while_workers_are_killed(self, catalog: Catalog) -> None:
        async with catalog.start("--workers=2") as service:
            await service.serving()
            username = name()
            async with AsyncClient(service.url) as client:
                await client.sign_up(username, f"{username}@example.com", PASSWORD)
                await mirrored(service, client)


def documented(function: str) -> Any:
    """Return a function as docs/client.md defines it."""
    (program,) = [each for each in examples() if f"def {function}" in each]
    names: dict[str, Any] = {}
    exec(program, names)  # noqa: S102 (our own documentation)
    return names[function]


async def mirrored(service: Service, client: AsyncClient) -> None:
    """Write and kill while a mirror follows; check that it is equal in the end."""
    mirror: dict[int, Product] = {}
    follower = AsyncClient(service.url)
    keep_mirror = documented("keep_mirror")
    following = asyncio.create_task(keep_mirror(follower, mirror))
    written: list[Product] = []

    async def write(number: int) -> None:
        for round_ in range(30):
            product = await client.create(f"Lamp {number} {round_}", round_)
            if round_ % 3 == 1:
                product = await client.update(product, {"price": product.price + 1})
            if round_ % 5 == 4:
                await client.delete(product)
            else:
                written.append(product)

    writing = asyncio.gather(*(write(number) for number in range(4)))
    killed = 0
    async with asyncio.timeout(90):
        while not writing.done():
            victim = min(service.workers, default=0)
            if victim and killed < KILLS and len(service.logged("worker_ready")) > killed:
                os.kill(victim, signal.SIGKILL)
                killed += 1
            await asyncio.wait([writing], timeout=0.5)
        await writing
        wanted = {product.id: product async for product in client.products()}
        while mirror != wanted:
            assert not following.done(), following.exception()
            await asyncio.sleep(0.05)
    following.cancel()
    await asyncio.wait([following])
    await follower.aclose()
    assert killed == KILLS
    assert {product.id for product in written} <= set(wanted)
