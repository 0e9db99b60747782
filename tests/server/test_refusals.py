"""Refusals of the service and of nginx have the same form, whichever of them refuses."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

import pytest

from catalog.errors import CatalogError, public_errors
from catalog.http.replies import problem_page
from tests.load.tls import certify, listener
from tests.server.nginx import (
    SHIPPED,
    Nginx,
    free_ports,
    needs_cache,
    needs_nginx,
    nginx,
    own_folder,
)
from tests.server.service import Answer, Catalog, Connection, Service

pytestmark = needs_nginx

Way = Literal["straight", "nginx"]

BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Shop(NamedTuple):
    """The service, and nginx in front of it."""

    service: Service
    proxy: Nginx

    async def connect(self, way: Way) -> Connection:
        return await Connection.open(self.service.url if way == "straight" else self.proxy.url)


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with Catalog(tmp_path_factory.mktemp("shop")).start() as service:
        await service.serving()
        async with nginx(service.url) as proxy:
            yield Shop(service, proxy)


def request(start: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([start, b"Host: catalog", b"X-Request-ID: mine", *fields, b"", b""])


LENGTH = b"Content-Type: application/json\r\nContent-Length: 300000"

REFUSED: dict[str, tuple[bytes, str, str]] = {
    "broken escape": (request(b"GET /a%zz HTTP/1.1"), "malformed", "malformed"),
    "encoded NUL": (request(b"GET /a%00b HTTP/1.1"), "malformed", "malformed"),
    "blank in the path": (request(b"GET /a b HTTP/1.1"), "malformed", "malformed"),
    "blank in the query": (request(b"GET /api/products?q=a b HTTP/1.1"), "malformed", "malformed"),
    "no slash": (request(b"GET livez HTTP/1.1"), "malformed", "malformed"),
    "query alone": (request(b"GET ?q=1 HTTP/1.1"), "malformed", "malformed"),
    "asterisk": (request(b"OPTIONS * HTTP/1.1"), "malformed", "malformed"),
    "authority": (request(b"CONNECT catalog:80 HTTP/1.1"), "malformed", "malformed"),
    "user information": (request(b"GET http://a@b/livez HTTP/1.1"), "malformed", "malformed"),
    "CONNECT": (request(b"CONNECT /livez HTTP/1.1"), "method-not-allowed", "method-not-allowed"),
    "TRACE": (request(b"TRACE /livez HTTP/1.1"), "method-not-allowed", "method-not-allowed"),
    "unknown method": (
        request(b"BREW /livez HTTP/1.1"),
        "method-not-allowed",
        "method-not-allowed",
    ),
    # nginx takes only capitals for a method, and looks at the version last.
    "method in small letters": (request(b"get /livez HTTP/1.1"), "not-implemented", "malformed"),
    "prior knowledge": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "version-not-supported",
        "malformed",
    ),
    "version 3": (
        request(b"GET /livez HTTP/3.7"),
        "version-not-supported",
        "version-not-supported",
    ),
    "no version": (request(b"GET /livez JUNK/1.1"), "malformed", "malformed"),
    "no method": (request(b" /livez HTTP/1.1"), "malformed", "malformed"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "malformed", "malformed"),
    "no host": (b"GET /livez HTTP/1.1\r\nX-Request-ID: mine\r\n\r\n", "malformed", "malformed"),
    **{
        f"host {host!r}": (
            b"GET /api/products HTTP/1.1\r\nHost: %b\r\n\r\n" % host,
            *("malformed", "malformed"),
        )
        for host in (b"", b"a b", b"a/b", b"u@a", b"http://a")
    },
    "two hosts": (request(b"GET /livez HTTP/1.1", b"Host: other"), "malformed", "malformed"),
    "NUL in a field": (request(b"GET /livez HTTP/1.1", b"X: a\0b"), "malformed", "malformed"),
    "long address": (
        request(b"GET /api/products?q=" + b"a" * 9000 + b" HTTP/1.1"),
        "uri-too-long",
        "uri-too-long",
    ),
    "very long address": (
        request(b"GET /" + b"a" * 100_000 + b" HTTP/1.1"),
        "uri-too-long",
        "uri-too-long",
    ),
    "large cookie": (
        request(b"GET /livez HTTP/1.1", b"Cookie: " + b"a" * 9000),
        "headers-too-large",
        "headers-too-large",
    ),
    "many cookies": (
        request(b"GET /livez HTTP/1.1", *[b"Cookie: " + b"a" * 1000] * 50),
        "headers-too-large",
        "headers-too-large",
    ),
    "large body": (
        request(b"POST /api/auth/login HTTP/1.1", LENGTH),
        "body-too-large",
        "body-too-large",
    ),
    "transfer coding": (
        request(b"POST /api/auth/login HTTP/1.1", b"Transfer-Encoding: gzip"),
        "not-implemented",
        "not-implemented",
    ),
    "two lengths": (
        request(b"POST /livez HTTP/1.1", b"Content-Length: 1", b"Content-Length: 2"),
        "malformed",
        "malformed",
    ),
}
"""Bytes, and the codes of the service and of nginx."""

KINDS = {kind.slug: kind for kind in public_errors()}


def check(answer: Answer, kind: type[CatalogError]) -> None:
    """Check that a response is the problem of an error, complete with its headers."""
    headers = answer.headers
    problem = json.loads(answer.body)
    assert answer.status == kind.status
    assert headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["code"]) == (kind.status, kind.slug)
    assert (problem["title"], problem["type"]) == (kind.title, f"/problems/{kind.slug}")
    assert problem["detail"]
    assert problem["request_id"] == headers["x-request-id"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"
    assert ("allow" in headers) == (kind.status == 405)


class TestRefusal:
    @pytest.mark.parametrize("way", ["straight", "nginx"])
    @pytest.mark.parametrize("name", REFUSED)
    async def test_refused_request_gets_a_problem(self, shop: Shop, name: str, way: Way) -> None:
        data, straight, through = REFUSED[name]
        connection = await shop.connect(way)

        await connection.send(data)
        answer = await connection.answer()
        await connection.close()

        check(answer, KINDS[straight if way == "straight" else through])

    @pytest.mark.parametrize("way", ["straight", "nginx"])
    async def test_large_head_within_the_bounds_is_taken(self, shop: Shop, way: Way) -> None:
        connection = await shop.connect(way)

        for size, count in ((8000, 1), (4100, 7), (100, 250)):
            cookies = ["Cookie: " + "a" * size] * count
            assert (await connection.get("/livez", *cookies)).status == 200
        await connection.close()

    @pytest.mark.parametrize("way", ["straight", "nginx"])
    @pytest.mark.parametrize(
        "browser", [BROWSER, "Accept: application/xml,text/html;q=0.9,*/*;q=0.5"]
    )
    async def test_browser_gets_a_page_outside_of_the_api(
        self, shop: Shop, way: Way, browser: str
    ) -> None:
        # nginx refuses one of them itself, and passes on the other.
        for path in ("/nothing", "/metrics" if way == "nginx" else "/problems/nothing"):
            connection = await shop.connect(way)
            page = await connection.get(path, browser)
            other = await connection.get(path, "Accept: application/json")
            in_api = await connection.get("/api/nothing", browser)
            await connection.close()

            assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
            assert b'<a href="/">' in page.body
            assert page.headers["x-request-id"].encode() in page.body
            assert "script-src" not in page.headers["content-security-policy"]
            check(other, KINDS["not-found"])
            check(in_api, KINDS["not-found"])

    async def test_page_of_nginx_is_that_of_the_service(self, shop: Shop) -> None:
        pages = []
        for path in ("/metrics", "/nothing"):
            connection = await shop.connect("nginx")
            pages.append(await connection.get(path, BROWSER, "X-Request-ID: mine"))
            await connection.close()

        ours, theirs = pages
        assert ours.body == theirs.body
        own = {"date", "server", "connection", "content-length", "vary", "content-encoding"}
        fields = [
            {name: value for name, value in page.headers.items() if name not in own}
            for page in pages
        ]
        assert fields[0] == fields[1]

    async def test_refusals_of_tls_are_problems(self, shop: Shop) -> None:
        with free_ports(1) as (port,):
            pass
        with own_folder() as folder:
            certify(folder)
            demand = "ssl_verify_client on;\nssl_client_certificate"
            lines = f"{listener(folder, port)}\n{demand} {folder}/fullchain.pem;\n"

            def with_tls(text: str) -> str:
                return text.replace("# For TLS, with", f"{lines}# For TLS, with")

            context = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
            async with nginx(shop.service.url, edit=with_tls):
                plain = await Connection.open(f"http://127.0.0.1:{port}")
                without_tls = await plain.get("/livez")
                streams = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=context, server_hostname="localhost"
                )
                encrypted = Connection(*streams)
                without_certificate = await encrypted.get("/livez")
                await plain.close()
                await encrypted.close()

        check(without_tls, KINDS["malformed"])
        check(without_certificate, KINDS["malformed"])


def hasty(text: str) -> str:
    """Wait for a body for a second instead of ten."""
    return text.replace("client_body_timeout 10s", "client_body_timeout 1s").replace(
        r'"~^(9\.9|\d\d)" 1;', r'"~^(0\.9|[1-9])" 1;'
    )


BODIES = {
    "JSON": ("POST /api/products", "application/json", "Content-Length: 60", '{"name": '),
    "nothing": ("POST /api/products", "application/json", "Content-Length: 60", ""),
    "chunks": ("POST /api/products", "application/json", "Transfer-Encoding: chunked", "1\r\n{"),
    "patch": ("PATCH /api/products/1", "application/json", "Content-Length: 60", "{"),
    "log-in": ("POST /api/auth/login", "application/json", "Content-Length: 60", "{"),
    "import": ("POST /api/products", "text/csv", "Content-Length: 60", "name,price\n"),
    "of a deletion": ("DELETE /api/products/1", "text/plain", "Content-Length: 60", "a"),
    "of a page": ("GET /api/products", "text/plain", "Content-Length: 60", "a"),
    "of a probe": ("GET /livez", "text/plain", "Content-Length: 60", "a"),
}
"""Requests, their media type and framing, and the beginning of the body, after which it stalls."""


@pytest.fixture(scope="module")
async def hasty_shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Shop, str]]:
    catalog = Catalog(tmp_path_factory.mktemp("hasty"))
    catalog.definitions["catalog.http.middleware.request_body"] = "BODY_SECONDS = 1"
    async with catalog.start() as service:
        await service.serving()
        async with nginx(service.url, edit=hasty) as proxy:
            yield Shop(service, proxy), await service.sign_up()


class TestBody:
    @needs_cache
    @pytest.mark.parametrize("way", ["straight", "nginx"])
    @pytest.mark.parametrize("name", BODIES)
    async def test_stalled_body_gets_408(
        self, hasty_shop: tuple[Shop, str], name: str, way: Way
    ) -> None:
        shop, token = hasty_shop
        start, media_type, framing, begin = BODIES[name]
        connection = await shop.connect(way)

        fields = f"Host: catalog\r\nAuthorization: Bearer {token}\r\nContent-Type: {media_type}"
        await connection.send(f"{start} HTTP/1.1\r\n{fields}\r\n{framing}\r\n\r\n{begin}".encode())
        answer = await connection.answer()
        rest = await connection.reader.read()
        await connection.close()

        # An import reports what it has created so far.
        if name != "import":
            check(answer, KINDS["request-timeout"])
        assert (answer.status, rest) == (408, b"")

    @pytest.mark.parametrize("way", ["straight", "nginx"])
    @pytest.mark.parametrize("media_type", ["application/json", "application/x-ndjson"])
    async def test_broken_chunk_is_refused(self, shop: Shop, media_type: str, way: Way) -> None:
        token = await shop.service.sign_up(f"{way}-{media_type[-6:]}")
        connection = await shop.connect(way)

        await connection.send(
            f"POST /api/products HTTP/1.1\r\nHost: catalog\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode()
        )
        answer = await connection.answer()
        await connection.close()

        assert (answer.status, json.loads(answer.body)["code"]) == (400, "malformed")

    @pytest.mark.parametrize("way", ["straight", "nginx"])
    async def test_chunked_body_is_bounded(self, shop: Shop, way: Way) -> None:
        connection = await shop.connect(way)
        size = 300_000

        await connection.send(
            b"POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, b" " * size)
        )
        answer = await connection.answer()
        await connection.close()

        check(answer, KINDS["body-too-large"])


class TestTable:
    def test_codes_and_titles_are_those_of_the_service(self) -> None:
        text = (SHIPPED / "catalog" / "problem_table.conf").read_text()
        maps = dict(re.findall(r"map \$status \$(\w+) {(.*?)\n}", text, re.DOTALL))
        rows = [
            dict(re.findall(r'^ *(\w+) "?(.*?)"?;$', maps[name], re.MULTILINE))
            for name in ("catalog_problem", "catalog_problem_title")
        ]
        codes, titles = rows

        assert codes.keys() == titles.keys()
        for status, code in codes.items():
            kind = KINDS[code]
            assert (status in {str(kind.status), "default"}, titles[status]) == (True, kind.title)

    def test_every_error_of_nginx_has_a_form(self) -> None:
        text = (SHIPPED / "catalog" / "error_pages.conf").read_text()
        lines = re.findall(r"^error_page ([\d ]+?)(?: =(\d*))? [$@]\w+;", text, re.MULTILINE)
        handled = {int(status) for statuses, _ in lines for status in statuses.split()}

        # Those that nginx makes itself (ngx_http_special_response.c): the others are redirects, or
        # need a module or directive that is not used.
        own = {400, 404, 405, 408, 411, 412, 413, 414, 415, 416, 421, *range(494, 498), 500, 501}
        assert handled >= own | {503, 505}

    def test_nginx_and_service_match_browsers_by_one_pattern(self) -> None:
        text = (SHIPPED / "catalog" / "problem_table.conf").read_text()

        assert f'"~*{problem_page.BROWSER.pattern}" @problem_page;' in text
