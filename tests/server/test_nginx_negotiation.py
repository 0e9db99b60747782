"""Requests mean the same directly and through nginx, whose cache parses headers by itself."""

import gzip
import random
import zlib
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest

from catalog.http.middleware.request_body import MAX_BODY_BYTES
from catalog.products.bulk.formats import IMPORTED
from tests.http.replies.accept_cases import ACCEPT_CASES
from tests.server.nginx import Nginx, needs_cache, nginx
from tests.server.service import Catalog, Service

PATH = "/api/products"
PAGE = f"{PATH}?limit=2"

GENERATED = 2000
PARTS = (
    *(
        "application",
        "json",
        "application/json",
        "*/*",
        "*",
        "/",
        ",",
        ", ",
        ";",
        "; q=0",
        ";q=0.5",
    ),
    *(";q=1", ";q=0.000", ";charset=utf-8", "text/csv", "text/*", "application/*", "text/html"),
    *(
        "application/problem+json",
        "application/x-ndjson",
        "x",
        '"',
        "image/png",
        " ",
        "\t",
        "=",
        "q",
    ),
)

pytestmark = needs_cache

Hops = tuple[Service, Nginx]


@pytest.fixture(scope="module")
async def hops(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hops]:
    catalog = Catalog(tmp_path_factory.mktemp("hops"))
    async with catalog.start(CATALOG_READ_LIMIT="off") as service:
        await service.serving()
        headers = {"Authorization": f"Bearer {await service.sign_up()}"}
        async with httpx.AsyncClient(base_url=service.url, headers=headers) as ada:
            for number in range(3):
                await ada.post(PATH, json={"name": f"Lamp {number}", "price": 1})
        async with nginx(service.url) as proxy:
            await proxy.caching()
            yield service, proxy


def outcome(answer: httpx.Response) -> tuple[int, str, bytes]:
    """Return status, media type and body, without a problem's body, which has a request id."""
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    is_problem = media_type == "application/problem+json"
    return answer.status_code, media_type, b"" if is_problem else answer.content


Headers = dict[str, str] | list[tuple[str, str]]


async def differences(hops: Hops, values: Sequence[Headers], path: str = PAGE) -> list[Headers]:
    """Return the headers that are answered differently directly and through nginx."""
    found = []
    service, proxy = hops
    async with (
        httpx.AsyncClient(base_url=service.url) as straight,
        httpx.AsyncClient(base_url=proxy.url) as through,
    ):
        for client in (straight, through):
            # Send the given headers only.
            client.headers.clear()
        for number, headers in enumerate(values):
            if number % 8 == 0:
                # Fill the cache, so that a wrong hit is possible.
                for _ in range(2):
                    await through.get(path)
            one, other = [await each.get(path, headers=headers) for each in (straight, through)]
            if outcome(one) != outcome(other):
                found.append(headers)
    return found


async def halves(body: bytes) -> AsyncIterator[bytes]:
    """Yield a body in two pieces, which a client sends as chunks."""
    yield body[: len(body) // 2]
    yield body[len(body) // 2 :]


def generated_accepts() -> list[str]:
    chance = random.Random(14)  # noqa: S311 (repeatable is what it must be)
    found = ["".join(chance.choices(PARTS, k=chance.randint(1, 7))) for _ in range(GENERATED)]
    return [text.strip(" \t") for text in found]


class TestAccept:
    async def test_accept_case_has_the_same_outcome(self, hops: Hops) -> None:
        cases = [{"Accept": case.accept.strip()} for case in ACCEPT_CASES]

        assert await differences(hops, cases) == []

    @pytest.mark.timeout(600)
    async def test_generated_value_has_the_same_outcome(self, hops: Hops) -> None:
        values = [{"Accept": text} for text in generated_accepts()]
        _, proxy = hops
        before = proxy.answers()["HIT"]

        assert await differences(hops, values) == []

        # Many are answered from the cache, so a wrong hit would be found.
        assert proxy.answers()["HIT"] - before > GENERATED / 20

    @pytest.mark.parametrize(
        "query",
        [
            *("format=json", "limit=2&format=json", "format=csv", "format=ndjson&limit=2"),
            *(
                "format=",
                "format",
                "format=JSON",
                "format=json&format=json",
                "format=json&format=csv",
            ),
            *("%66ormat=csv", "form%61t=json", "format=%6Ason", "q=format%3Dcsv", "xformat=csv"),
            *("limit=2;format=csv", "limit=2&&format=csv&", "format=jsonl", "limit=2&format=xml"),
        ],
    )
    async def test_format_has_the_same_outcome(self, hops: Hops, query: str) -> None:
        accepts = (
            "",
            "application/json",
            "text/csv",
            "image/png",
            "application/x-ndjson, */*;q=0.1",
        )
        values = [{"Accept": text} for text in accepts]

        assert await differences(hops, values, f"{PATH}?{query}") == []

    async def test_page_by_format_is_answered_from_the_cache(self, hops: Hops) -> None:
        _, proxy = hops
        async with httpx.AsyncClient(base_url=proxy.url) as anyone:
            for number in range(20):
                headers = {"Accept": "text/csv", "X-Request-ID": f"format-{number}"}
                await anyone.get(f"{PAGE}&format=json", headers=headers)
                if await proxy.source_of(f"format-{number}") == "HIT":
                    return
        pytest.fail("It was never answered from the cache.")

    @pytest.mark.parametrize(
        "accept",
        [
            "application/json",
            "application/json, text/plain, */*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
            "*/*;q=0.5",
        ],
    )
    async def test_common_value_is_answered_from_the_cache(self, hops: Hops, accept: str) -> None:
        _, proxy = hops
        async with httpx.AsyncClient(base_url=proxy.url) as anyone:
            for number in range(20):
                name = f"{abs(hash(accept))}-{number}"
                await anyone.get(PAGE, headers={"Accept": accept, "X-Request-ID": name})
                if await proxy.source_of(name) == "HIT":
                    return
        pytest.fail("It was never answered from the cache.")

    async def test_longest_list_is_answered(self, hops: Hops) -> None:
        _, proxy = hops
        accept = "*/*," * 1900 + "x"
        async with httpx.AsyncClient(base_url=proxy.url) as anyone:
            answer = await anyone.get(PAGE, headers={"Accept": accept})

        assert answer.status_code == 200


class TestLines:
    """A list may come in several lines (RFC 9110, section 5.3)."""

    async def test_lines_of_a_list_have_the_same_outcome(self, hops: Hops) -> None:
        lines = {
            "Accept": ("application/json", "text/csv", "image/png", "*/*;q=0.1", "*/*", ""),
            "Accept-Encoding": ("gzip", "identity", "br", "gzip;q=0"),
            "Cache-Control": ("no-cache", "max-stale"),
            "Accept-Language": ("de", "en"),
        }
        values = [
            [(name, first), (name, second)]
            for name, parts in lines.items()
            for first in parts
            for second in parts
        ]

        assert await differences(hops, values) == []

    @pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
    async def test_nginx_refuses_a_condition_of_several_lines(self, hops: Hops, name: str) -> None:
        service, proxy = hops
        async with httpx.AsyncClient(base_url=service.url) as straight:
            tag = (await straight.get(PAGE)).headers["etag"]
            of_both = await straight.get(PAGE, headers=[(name, '"x"'), (name, tag)])
        async with httpx.AsyncClient(base_url=proxy.url) as through:
            refused = await through.get(PAGE, headers=[(name, '"x"'), (name, tag)])

        assert of_both.status_code == (200 if name == "If-Match" else 304)
        assert (refused.status_code, refused.json()["code"]) == (400, "malformed")


class TestContentType:
    @pytest.mark.parametrize("media_type", [*IMPORTED, "APPLICATION/JSONL ; charset=utf8"])
    async def test_import_may_be_larger_than_a_body(self, hops: Hops, media_type: str) -> None:
        service, proxy = hops
        header = b"name,price\n" if "csv" in media_type else b""
        blank_lines = b"\n" * (MAX_BODY_BYTES + 1)
        headers = {
            "Content-Type": media_type,
            "Authorization": f"Bearer {await service.sign_up(f'user{abs(hash(media_type))}')}",
        }
        for url in (service.url, proxy.url):
            async with httpx.AsyncClient(base_url=url, headers=headers) as ada:
                answer = await ada.post(f"{PATH}?dry_run=1", content=header + blank_lines)

            assert (answer.status_code, answer.json()["created"]) == (200, 0)


class TestContentEncoding:
    @pytest.mark.parametrize("is_chunked", [False, True], ids=["whole", "chunked"])
    async def test_gzip_bodies_have_the_same_outcome(self, hops: Hops, is_chunked: bool) -> None:
        """Whole bodies take the fast path of the service, chunked ones the general path."""
        service, proxy = hops
        token = await service.sign_up(f"gzip{is_chunked}")
        lamp, lines = b'{"name":"Lamp","price":1}', b'{"name":"Lamp","price":1}\n' * 1000
        cases = {
            ("application/json", "gzip", gzip.compress(lamp)): (201, None),
            ("application/json", "gzip", gzip.compress(lamp)[:-1]): (400, None),
            ("application/json", "gzip", gzip.compress(b" " * 300_000)): (413, None),
            ("application/json", "br", lamp): (415, None),
            ("application/x-ndjson", "gzip", gzip.compress(lines)): (200, 1000),
            ("application/x-ndjson", "gzip", gzip.compress(lines) * 2): (200, 2000),
            ("application/x-ndjson", "gzip", gzip.compress(lines) + b"\0"): (400, 0),
            ("application/x-ndjson", "deflate", zlib.compress(lines)): (415, None),
            ("text/csv", "X-GZIP", gzip.compress(b"name,price\nLamp,1\n")): (200, 1),
        }

        for url in (service.url, proxy.url):
            async with httpx.AsyncClient(base_url=url) as ada:
                for (media_type, coding, body), (status, created) in cases.items():
                    content = halves(body) if is_chunked else body
                    headers = {"Content-Type": media_type, "Content-Encoding": coding}
                    headers["Authorization"] = f"Bearer {token}"
                    answer = await ada.post(PATH, content=content, headers=headers)

                    assert answer.status_code == status, (url, media_type, coding, answer.text)
                    if created is not None:
                        assert answer.json()["created"] == created, (url, answer.text)
                    if status == 415:
                        assert answer.headers["Accept-Encoding"] == "gzip"


class TestIfNoneMatch:
    async def test_list_of_tags_has_the_same_outcome(self, hops: Hops) -> None:
        service, _ = hops
        async with httpx.AsyncClient(base_url=service.url) as straight:
            tag = (await straight.get(PAGE)).headers["etag"]
        values = [
            *(tag, f"W/{tag}", "*", '"x"', f'"x", {tag}', f"{tag},", f",{tag}", f'"x",W/{tag}'),
            *(tag.strip('"'), tag[:-1], tag[1:], f"w/{tag}", f"x{tag}", f"{tag}x", f"*, {tag}"),
            *(tag[:-1] + suffix + '"' for suffix in ("-gzip", "--gzip", ";br", "-zstd", "-x", "-")),
            *(f'W/{tag[:-1]}-gzip"', f'"x", {tag[:-1]};gzip", "y"', f'{tag[:-1]}-gzip" x'),
            *(f'"x{tag}', f'"a,{tag[1:]}', f'"a, {tag}, b"', f"{tag} {tag}", "", '""'),
        ]

        assert await differences(hops, [{"If-None-Match": value} for value in values]) == []


class TestCacheControl:
    @pytest.mark.parametrize(
        "value",
        ["no-cache", "NO-CACHE", "max-age=0", 'max-age="0"', "max-stale, max-age = 0", "no-store"],
    )
    async def test_request_for_a_fresh_page_bypasses_the_cache(
        self, hops: Hops, value: str
    ) -> None:
        _, proxy = hops
        async with httpx.AsyncClient(base_url=proxy.url) as anyone:
            await anyone.get(PAGE)
            name = f"{abs(hash(value))}-fresh"
            await anyone.get(PAGE, headers={"Cache-Control": value, "X-Request-ID": name})

        assert await proxy.source_of(name) == ""
