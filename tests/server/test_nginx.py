"""nginx with the shipped configuration, from the clients' point of view."""

import asyncio
import json

import pytest

from tests.server.nginx import needs_nginx
from tests.server.service import TIMEOUT_SECONDS, Connection
from tests.server.shop import PATH, TEXT, Shop

INCREMENTS = 100
CLIENTS = 10

pytestmark = needs_nginx


class TestProxy:
    async def test_increments_are_not_lost(self, shop: Shop) -> None:
        refused = 0
        path = await shop.create_product(description=TEXT)

        async with shop.client(token=True) as ada, shop.client() as anyone:

            async def increment() -> None:
                nonlocal refused
                done = 0
                while done < INCREMENTS // CLIENTS:
                    current = await anyone.get(path)
                    # A compressed page has a weak tag.
                    assert current.headers["content-encoding"] == "gzip"
                    assert current.headers["etag"].startswith('W/"')
                    condition = {"If-Match": current.headers["etag"]}
                    price = current.json()["price"] + 1
                    answer = await ada.patch(path, json={"price": price}, headers=condition)
                    if answer.status_code == 200:
                        done += 1
                    else:
                        assert answer.status_code == 412, answer.text
                        refused += 1

            await asyncio.gather(*(increment() for _ in range(CLIENTS)))

            read = await anyone.get(path)
            for each in (read, await anyone.get(PATH), await ada.get(PATH)):
                known = {"If-None-Match": each.headers["etag"]}
                sender = ada if each.request.headers.get("authorization") else anyone
                assert (await sender.get(each.url, headers=known)).status_code == 304

        assert (read.json()["price"], read.json()["version"]) == (INCREMENTS, INCREMENTS + 1)
        assert refused > 0

    async def test_metrics_are_not_reachable(self, shop: Shop) -> None:
        for path in ("/metrics", "/metrics/", "//metrics", "/%6detrics", "/livez/../metrics"):
            connection = await Connection.open(shop.proxy.url)
            answer = await connection.get(path)
            await connection.close()

            assert answer.status == 404
            assert answer.headers["content-type"] == "application/problem+json"
            problem = json.loads(answer.body)
            assert problem["code"] == "not-found"
            assert problem["request_id"] == answer.headers["x-request-id"]

    @pytest.mark.parametrize("path", ["//api/products", "/%2fapi/products"])
    async def test_slashes_before_the_path_are_one_straight_and_through_nginx(
        self, shop: Shop, path: str
    ) -> None:
        lines = b'{"name":"Lamp","price":1}\n' * 20_000
        head = (
            f"POST {path}?dry_run=true HTTP/1.1\r\nHost: catalog\r\n"
            f"Content-Type: application/x-ndjson\r\nAuthorization: Bearer {shop.token}\r\n"
            f"Content-Length: {len(lines)}\r\n\r\n"
        )
        for url in (shop.service.url, shop.proxy.url):
            connection = await Connection.open(url)

            await connection.send(head.encode() + lines)
            imported = await connection.answer()
            missing = await connection.get("//api/nothing", "Accept: text/html")
            await connection.close()

            assert (imported.status, json.loads(imported.body)["created"]) == (200, 20_000)
            assert missing.headers["content-type"] == "application/problem+json"

    async def test_json_body_is_bounded_and_import_is_not(self, shop: Shop) -> None:
        line = json.dumps({"name": "Lamp", "price": 1, "description": TEXT}).encode() + b"\n"
        ndjson = {"Content-Type": "application/x-ndjson"}

        async with shop.client(token=True) as ada:
            long = await ada.post(
                PATH, json={"name": "Lamp", "price": 1, "description": "x" * 300000}
            )
            bulk = await ada.post(f"{PATH}?dry_run=true", content=line * 500, headers=ndjson)

        assert long.status_code == 413
        assert long.json()["code"] == "body-too-large"
        assert bulk.status_code == 200, bulk.text
        assert bulk.json()["created"] == 500

    async def test_events_are_not_buffered(self, shop: Shop) -> None:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
        async with shop.client() as anyone:
            since = (await anyone.get(PATH)).headers["catalog-position"]
            events = anyone.stream("GET", f"{PATH}/changes?since={since}", headers=headers)
            async with events as stream, asyncio.timeout(TIMEOUT_SECONDS):
                lines = stream.aiter_lines()
                assert await anext(lines) == ":"

                path = await shop.create_product()

                event = [await anext(lines) for _ in range(4)]
                assert event[1] == "retry: 1000"
                assert event[2].startswith("id: ")
                assert f'"id":{path.rpartition("/")[2]}' in event[3]

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (b"GET / HTTP/3.7\r\nHost: catalog\r\n\r\n", 505),
            (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: catalog\r\n\r\n", 414),
            (b"get / HTTP/1.1\r\nHost: catalog\r\n\r\n", 400),
            (b"OPTIONS * HTTP/1.1\r\nHost: catalog\r\n\r\n", 400),
            (b"GET /%00 HTTP/1.1\r\nHost: catalog\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        ],
    )
    async def test_unreadable_request_line_is_refused_as_a_problem(
        self, shop: Shop, data: bytes, status: int
    ) -> None:
        connection = await Connection.open(shop.proxy.url)

        await connection.send(data)
        answer = await connection.answer()
        await connection.close()

        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body)["status"] == status

    async def test_smuggled_requests_are_refused(self, shop: Shop) -> None:
        inner = b"GET /metrics HTTP/1.1\r\nHost: catalog\r\n\r\n"
        lengths = b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"
        for fields in (lengths, b"Content-Length: 0\r\n" + b"Content-Length: 5\r\n"):
            connection = await Connection.open(shop.proxy.url)
            await connection.send(
                b"POST /livez HTTP/1.1\r\nHost: catalog\r\n" + fields + b"\r\n0\r\n\r\n" + inner
            )
            answer = await connection.answer()
            assert (answer.status, answer.closes) == (400, True)
            assert await connection.reader.read() == b""
            await connection.close()
