"""Rules for all requests: headers, errors, bodies, methods, operations."""

import gzip

from catalog.conformance.rule import (
    Section,
    expect,
    expect_equal,
    expect_problem,
    expect_status,
    faulty_fields,
)
from catalog.conformance.site import Site

section = Section("Everywhere")

JSON = {"Content-Type": "application/json"}


@section.rule("Every response has a request id, security headers and a deliberate Cache-Control.")
async def common_headers(site: Site) -> None:
    for path in ("/api/products", "/api/products/my", "/api/nothing", "/livez"):
        answer = await site.call("GET", path)
        headers = answer.headers
        expect(headers.get("x-request-id"), f"{path} has no X-Request-ID")
        expect_equal(headers.get("x-content-type-options"), "nosniff", f"{path}: nosniff")
        expect_equal(headers.get("referrer-policy"), "no-referrer", f"{path}: Referrer-Policy")
        expect("content-security-policy" in headers, f"{path} has no Content-Security-Policy")
        expect("cache-control" in headers, f"{path} has no Cache-Control")


@section.rule("X-Request-ID is the client's if it is valid, else a new one.")
async def request_id(site: Site) -> None:
    answer = await site.call("GET", "/api/products?limit=1", headers={"X-Request-ID": "a-B.c_9"})
    expect_equal(answer.headers.get("x-request-id"), "a-B.c_9", "X-Request-ID")
    answer = await site.call("GET", "/api/products?limit=1", headers={"X-Request-ID": "a b"})
    expect(answer.headers.get("x-request-id") not in {"a b", None, ""}, "An invalid id came back.")


@section.rule("What carries or follows a token is no-store.")
async def tokens_are_not_stored(site: Site) -> None:
    for path in ("/api/products/my", "/api/auth/me"):
        answer = await site.ada.call("GET", path)
        expect_equal(answer.headers.get("cache-control"), "no-store", f"{path}: Cache-Control")


@section.rule("Errors are problem details (RFC 9457), never HTML, with the id of their request.")
async def errors_are_problems(site: Site) -> None:
    for method, path, status in (
        ("GET", "/api/nothing", 404),
        ("GET", "/api/products/9223372036854775807", 404),
        ("PUT", "/api/products", 405),
        ("GET", "/api/auth/me", 401),
    ):
        answer = await site.call(method, path)
        problem = expect_problem(answer, status)
        request_id = answer.headers.get("x-request-id")
        expect_equal(problem["request_id"], request_id, f"{path}: request_id")


@section.rule("405 names the allowed methods, OPTIONS answers 204 with them.")
async def methods(site: Site) -> None:
    for method, status in (("DELETE", 405), ("OPTIONS", 204)):
        answer = await site.call(method, "/api/products")
        expect_equal(answer.status_code, status, f"The status of {method}")
        allowed = {each.strip() for each in answer.headers.get("allow", "").split(",")}
        expect({"GET", "POST"} <= allowed, f"{method}: Allow is {sorted(allowed)}")


@section.rule("HEAD answers as GET, without a body.")
async def head(site: Site) -> None:
    product = await site.ada.create_product()
    for path in ("/api/products?limit=1", f"/api/products/{product['id']}"):
        got, headed = await site.call("GET", path), await site.call("HEAD", path)
        expect_equal(headed.status_code, got.status_code, f"The status of HEAD {path}")
        expect_equal(headed.content, b"", f"The body of HEAD {path}")
        expect_equal(headed.headers.get("etag"), got.headers.get("etag"), f"{path}: ETag")


@section.rule("A trailing slash answers as without it, without a redirect.")
async def trailing_slash(site: Site) -> None:
    product = await site.ada.create_product()
    answer = await site.call("GET", f"/api/products/{product['id']}/")
    expect_equal(expect_status(answer, 200), product, "The product")


@section.rule("Any other text in an id's place is 404.")
async def ids(site: Site) -> None:
    for text in ("0", "-1", "1.5", "abc", "9223372036854775808", "%31%20", "1e3", "٣"):
        expect_problem(await site.call("GET", f"/api/products/{text}"), 404)


@section.rule("A field that is not known is 422 and named.")
async def unknown_fields(site: Site) -> None:
    body = {"name": "Lamp", "price": 1, "colour": "red"}
    problem = expect_problem(await site.ada.call("POST", "/api/products", json=body), 422)
    expect_equal(faulty_fields(problem), ["/colour"], "The faulty field")


@section.rule("Types are strict: texts and booleans are no numbers.")
async def strict_types(site: Site) -> None:
    for price in ("5", True, None, [5]):
        body = {"name": "Lamp", "price": price}
        problem = expect_problem(await site.ada.call("POST", "/api/products", json=body), 422)
        expect_equal(faulty_fields(problem), ["/price"], f"The faulty field for {price!r}")


@section.rule("NaN, duplicate names, invalid UTF-8, lone surrogates and deep nesting are refused.")
async def strict_json(site: Site) -> None:
    for body in (
        b"",
        b"{",
        b'{"name": "Lamp", "price": NaN}',
        b'{"name": "Lamp", "price": 1e999}',
        b'{"name": "a", "name": "b", "price": 1}',
        b'{"name": "\xff", "price": 1}',
        b'{"name": "\\ud800", "price": 1}',
        b'{"name": "a\\u0000b", "price": 1}',
        b'{"name": ' + b"[" * 500 + b"]" * 500 + b', "price": 1}',
    ):
        answer = await site.ada.call("POST", "/api/products", content=body, headers=JSON)
        expect_problem(answer, {400, 422})


@section.rule("A JSON body above 256 KiB is 413.")
async def large_bodies(site: Site) -> None:
    body = b'{"name": "Lamp", "price": 1, "description": "' + b"x" * (256 * 1024) + b'"}'
    expect_problem(await site.ada.call("POST", "/api/products", content=body, headers=JSON), 413)


@section.rule("A body of another media type or charset is 415.")
async def media_types(site: Site) -> None:
    for media_type in ("text/plain", "application/xml", "application/json; charset=utf-16"):
        headers = {"Content-Type": media_type}
        body = b'{"name": "Lamp", "price": 1}'
        answer = await site.ada.call("POST", "/api/products", content=body, headers=headers)
        expect_problem(answer, 415)


@section.rule("A gzip body is decoded; another coding is 415 and names gzip.")
async def codings(site: Site) -> None:
    body = gzip.compress(b'{"name": "Packed", "price": 1}')
    for coding, status in (("gzip", 201), ("br", 415)):
        headers = {**JSON, "Content-Encoding": coding}
        answer = await site.ada.call("POST", "/api/products", content=body, headers=headers)
        expect_status(answer, status)
    expect_equal(answer.headers.get("accept-encoding"), "gzip", "Accept-Encoding")


@section.rule("What a client does not accept is 406; problems count as JSON.")
async def negotiation(site: Site) -> None:
    path = "/api/products?limit=1"
    expect_problem(await site.call("GET", path, headers={"Accept": "image/png"}), 406)
    for accept in ("*/*", "application/*", "application/problem+json", "text/html, */*;q=0.1"):
        expect_status(await site.call("GET", path, headers={"Accept": accept}), 200)


@section.rule("/livez and /readyz answer 200, /openapi.json is an OpenAPI 3.1 document.")
async def operations(site: Site) -> None:
    for path in ("/livez", "/readyz"):
        expect_status(await site.call("GET", path), 200)
    document = expect_status(await site.call("GET", "/openapi.json"), 200)
    expect(str(document["openapi"]).startswith("3.1"), f"It is OpenAPI {document['openapi']}")
    expect("/api/products" in str(sorted(document["paths"])), "The document lacks /api/products")
