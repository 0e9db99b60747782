"""Routing: ids, slashes, methods and query parameters."""

import re

import pytest
from quart import Quart

from tests.http.wire import app_to_read, exchange
from tests.support import Caller, Response, fields_of, problem_of

APP = app_to_read()
# Methods by path, for every route of the service, with a sample value for each parameter.
METHODS: dict[str, set[str]] = {}
for rule in APP.url_map.iter_rules():
    path = rule.rule.replace("<slug>", "not-found").replace("<name>", "page.css")
    path = re.sub(r"<id:\w+>", "7", path)
    METHODS.setdefault(path, {"OPTIONS"}).update(rule.methods or ())


class TestIds:
    @pytest.mark.parametrize(
        "text",
        [
            "0",
            "-1",
            "01",
            "007",
            "+1",
            "1.0",
            "1e2",
            "1_000",
            "0x10",
            "%201",
            "1%20",
            "1%00",
            "1%0A",
            "null",
            "1,2",
            "1;2",
            str(2**63),
            str(2**64),
            "9" * 19,
            "9" * 400,
            "9" * 5000,
            "٣",
            "%D9%A3",
            "\uff11",
            "²",
            "%2e%2e",
        ],
        ids=lambda text: text if len(text) < 30 else f"{len(text)}-nines",
    )
    async def test_invalid_id_is_not_found(self, holder: Caller, text: str) -> None:
        answer = await holder.send("DELETE", f"/api/products/{text}")

        assert problem_of(answer) == (404, "not-found")

    @pytest.mark.parametrize("number", [1, 9, 10, 2**31, 2**63 - 1])
    async def test_positive_64_bit_integer_is_a_valid_id(self, holder: Caller, number: int) -> None:
        # The request reaches the database, which this app does not have.
        answer = await holder.send("DELETE", f"/api/products/{number}")

        assert problem_of(answer) == (503, "database-unavailable")

    async def test_largest_id_is_queried(self, ada: Caller) -> None:
        for number in (2**53 + 1, 2**63 - 1):
            assert problem_of(await ada.delete(number)) == (404, "not-found")


class TestSlashes:
    @pytest.mark.parametrize("path", METHODS)
    async def test_trailing_slash_is_ignored(self, holder: Caller, path: str) -> None:
        for method in sorted(METHODS[path]):
            headers = {"X-Request-ID": "same"}

            plain = await holder.send(method, path, headers=headers)
            slashed = await holder.send(method, f"{path.rstrip('/')}/", headers=headers)

            assert slashed.status_code == plain.status_code
            assert slashed.headers.get("Allow") == plain.headers.get("Allow")
            # No response without a database has a token, which would differ. Readiness states the
            # age of its result, and metrics count requests.
            moving = re.compile(rb"\d+\.\d+ seconds|^catalog_.*\n", re.MULTILINE)
            assert moving.sub(b"", slashed.body) == moving.sub(b"", plain.body)

    @pytest.mark.parametrize("path", ["/api//products", "/livez//", "/api/products//"])
    async def test_double_slash_is_not_found(self, bare_app: Quart, path: str) -> None:
        answer = await exchange(bare_app, "GET", path)

        assert problem_of(answer) == (404, "not-found")
        assert "Location" not in answer.headers

    @pytest.mark.parametrize("path", ["/LIVEZ", "/Api/products", "/api/products.json", "/api"])
    async def test_path_has_no_alias(self, bare_app: Quart, path: str) -> None:
        assert problem_of(await exchange(bare_app, "GET", path)) == (404, "not-found")


class TestMethods:
    @pytest.mark.parametrize("path", METHODS)
    async def test_options_lists_the_allowed_methods(self, stranger: Caller, path: str) -> None:
        answer = await stranger.send("OPTIONS", path)

        assert answer.status_code == 204
        assert answer.body == b""
        assert allowed_by(answer) == METHODS[path]

    @pytest.mark.parametrize("path", METHODS)
    async def test_other_methods_are_not_allowed(self, stranger: Caller, path: str) -> None:
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "FROB"} - METHODS[path]:
            answer = await stranger.send(method, path)

            assert problem_of(answer) == (405, "method-not-allowed")
            assert allowed_by(answer) == METHODS[path]

    @pytest.mark.parametrize("path", METHODS)
    async def test_head_is_allowed_wherever_get_is(self, path: str) -> None:
        assert ("HEAD" in METHODS[path]) == ("GET" in METHODS[path])

    @pytest.mark.parametrize("method", ["OPTIONS", "PUT", "GET"])
    async def test_unknown_path_is_not_found_by_any_method(
        self, stranger: Caller, method: str
    ) -> None:
        assert problem_of(await stranger.send(method, "/api/nowhere")) == (404, "not-found")

    @pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method"])
    async def test_method_override_headers_are_ignored(self, holder: Caller, header: str) -> None:
        answer = await holder.get("/livez", headers={header: "DELETE"})

        assert answer.status_code == 200


class TestQuery:
    @pytest.mark.parametrize(
        ("query", "named"),
        [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=-1", "limit"),
            ("limit=%2B5", "limit"),
            ("limit=5.0", "limit"),
            ("limit=1e2", "limit"),
            ("limit=1_0", "limit"),
            ("limit=%205", "limit"),
            ("limit=%D9%A3", "limit"),
            ("limit=%00", "limit"),
            ("limit=" + "9" * 5000, "limit"),
            ("limit=true", "limit"),
            ("limit=5&limit=6", "limit"),
            ("limit=5&limit=5", "limit"),
            ("cursor=a&cursor=b", "cursor"),
            ("limit[]=5", "limit[]"),
            ("limit[0]=5", "limit[0]"),
            ("Limit=5", "Limit"),
            ("page=2", "page"),
            ("=5", ""),
            ("page=", "page"),
            ("page", "page"),
            ("%00=5", "\0"),
            ("__class__=5", "__class__"),
            ("self=5", "self"),
        ],
        ids=lambda text: text[:20],
    )
    async def test_invalid_parameter_is_reported(
        self, stranger: Caller, query: str, named: str
    ) -> None:
        answer = await stranger.get(f"/api/products?{query}")

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [named]

    @pytest.mark.parametrize(
        "query",
        [
            *("", "limit=1", "limit=1000", "limit=007", "&&limit=5&", "limit=", "limit", "cursor="),
            *("limit=&limit=5", "sort=&q=&min_price=&total=&user_id=&ids=&fields=&ids[]="),
            *(
                "total=true",
                "total=1",
                "total=false",
                "total=0",
                "ids=5&ids=8",
                "ids[]=5&ids[]=8,9",
            ),
        ],
    )
    async def test_valid_parameter_is_accepted(self, stranger: Caller, query: str) -> None:
        # The request reaches the database, which this app does not have.
        answer = await stranger.get(f"/api/products?{query}")

        assert problem_of(answer) == (503, "database-unavailable")

    @pytest.mark.parametrize(
        "query", ["q=caf%E9", "%FF=5", "limit=%FF", "q=%C0%80", "q=%ED%A0%80", "q=%F0%9F%98", "%ff"]
    )
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/api/products"),
            ("HEAD", "/api/products/"),
            ("GET", "/api/products/changes"),
            ("GET", "/api/products/7"),
            ("POST", "/api/products"),
            ("DELETE", "/api/products/7"),
            ("POST", "/api/auth/logout"),
        ],
    )
    async def test_query_that_is_not_utf8_is_malformed(
        self, holder: Caller, method: str, path: str, query: str
    ) -> None:
        answer = await holder.send(method, f"{path}?{query}")

        assert answer.status_code == 400
        if method != "HEAD":
            assert problem_of(answer) == (400, "malformed")

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/api/products/7"),
            ("PATCH", "/api/products/7"),
            ("DELETE", "/api/products/7"),
            ("DELETE", "/api/products/7/"),
            ("POST", "/api/auth/login"),
            ("POST", "/api/auth/logout"),
            ("GET", "/api/auth/me"),
        ],
    )
    async def test_parameter_of_a_route_that_takes_none_is_reported(
        self, holder: Caller, method: str, path: str
    ) -> None:
        answer = await holder.send(method, f"{path}?dry_run=true")

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["dry_run"]

    async def test_first_100_of_many_parameters_are_reported(self, stranger: Caller) -> None:
        query = "&".join(f"p{number}=1" for number in range(5000))

        answer = await stranger.get(f"/api/products?{query}")

        assert problem_of(answer) == (422, "invalid")
        assert len(fields_of(answer)) == 100


def allowed_by(answer: Response) -> set[str]:
    (allow,) = answer.headers.getlist("Allow")
    return set(allow.split(", "))
