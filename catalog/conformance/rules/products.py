"""Rules of single products."""

from secrets import token_hex

from catalog.conformance.rule import (
    Section,
    expect,
    expect_equal,
    expect_problem,
    expect_status,
    faulty_fields,
)
from catalog.conformance.site import Site

section = Section("Products")

PATH = "/api/products"
TEXT = "  Lampe „Ærø“ 🏮 e\u0301 <b>&amp;</b>\t\r\n' OR 1=1 --\u00a0\ufeff "


@section.rule("A create answers 201 with the product, Location and ETag.")
async def create(site: Site) -> None:
    body = {"name": "Lamp", "price": 24.9, "description": "Warm light."}
    answer = await site.ada.call("POST", PATH, json=body)
    made = expect_status(answer, 201)
    expect_equal({name: made[name] for name in body}, body, "The product")
    expect_equal((made["user_id"], made["version"]), (site.ada.id, 1), "Owner and version")
    location = answer.headers.get("location", "")
    expect(location.endswith(f"{PATH}/{made['id']}"), f"Location is {location!r}")
    read = await site.call("GET", f"{PATH}/{made['id']}")
    expect_equal(expect_status(read, 200), made, "The product as it is read")
    expect(read.headers.get("etag"), "There is no ETag.")
    expect_equal(read.headers["etag"].removeprefix("W/"), answer.headers["etag"], "The ETag")


@section.rule("Text comes back as it was sent, and prices as the same double.")
async def exact_values(site: Site) -> None:
    for price in (0, 0.1, 1e12, 131072.03, 5e-324, 0.30000000000000004):
        made = await site.ada.create_product(TEXT, price, description=TEXT)
        read = expect_status(await site.call("GET", f"{PATH}/{made['id']}"), 200)
        for product in (made, read):
            expect_equal(product["name"], TEXT, "The name")
            expect_equal(product["description"], TEXT, "The description")
            expect_equal(product["price"], price, "The price")


@section.rule("Invalid fields are 422, and all of them are named.")
async def invalid_products(site: Site) -> None:
    for body, fields in (
        ({"name": " ", "price": -1}, ["/name", "/price"]),
        ({"name": "x" * 513, "price": 1e12 + 1}, ["/name", "/price"]),
        ({"price": 1}, ["/name"]),
        ({"name": "Lamp", "price": 1, "description": "x" * 16384}, ["/description"]),
    ):
        problem = expect_problem(await site.ada.call("POST", PATH, json=body), 422)
        expect_equal(sorted(faulty_fields(problem)), fields, "The faulty fields")


@section.rule("Only signed-in callers create, and only owners change and delete.")
async def ownership(site: Site) -> None:
    expect_problem(await site.call("POST", PATH, json={"name": "Lamp", "price": 1}), 401)
    path = f"{PATH}/{(await site.ada.create_product())['id']}"
    expect_problem(await site.bob.call("PATCH", path, json={"price": 2}), 403)
    expect_problem(await site.bob.call("DELETE", path), 403)
    expect_equal(expect_status(await site.call("GET", path), 200)["price"], 1, "The price")


@section.rule(
    "A delete answers 200 with a message and the id, once; then there is no such product."
)
async def delete(site: Site) -> None:
    product_id = (await site.ada.create_product())["id"]
    path = f"{PATH}/{product_id}"
    gone = expect_status(await site.ada.call("DELETE", path), 200)
    expect_equal(gone, {"message": f"Product {product_id} deleted.", "id": product_id}, "The body")
    expect_problem(await site.ada.call("DELETE", path), 404)
    expect_problem(await site.call("GET", path), 404)


@section.rule(
    "PATCH changes what it names, null removes the description, the version grows by one."
)
async def patch(site: Site) -> None:
    made = await site.ada.create_product("Lamp", 1, description="Warm.")
    path = f"{PATH}/{made['id']}"
    changed = expect_status(await site.ada.call("PATCH", path, json={"price": 2}), 200)
    expected = {**made, "price": 2, "version": 2, "updated_at": changed["updated_at"]}
    expect_equal(changed, expected, "The product")
    changed = expect_status(await site.ada.call("PATCH", path, json={"description": None}), 200)
    expect_equal((changed["description"], changed["version"]), (None, 3), "The product")
    same = expect_status(await site.ada.call("PATCH", path, json={"price": 2}), 200)
    expect_equal(same["version"], 3, "The version after a change of nothing")


@section.rule("If-Match refuses a lost update with 412 and the current product; W/ and lists pass.")
async def if_match(site: Site) -> None:
    answer = await site.ada.call("POST", PATH, json={"name": "Lamp", "price": 1})
    path, tag = f"{PATH}/{answer.json()['id']}", answer.headers["etag"].removeprefix("W/")
    headers = {"If-Match": f'"another", W/{tag}'}
    changed = await site.ada.call("PATCH", path, json={"price": 2}, headers=headers)
    expect_status(changed, 200)
    late = await site.ada.call("PATCH", path, json={"price": 3}, headers=headers)
    expect_equal(expect_problem(late, 412).get("current"), changed.json(), "`current`")
    told, current = (each.headers.get("etag", "").removeprefix("W/") for each in (late, changed))
    expect_equal(told, current, "The ETag of a 412")
    expect_problem(await site.ada.call("DELETE", path, headers=headers), 412)
    expect_status(await site.ada.call("DELETE", path, headers={"If-Match": "*"}), 200)


@section.rule("If-None-Match answers 304 without a body, for products and for pages.")
async def if_none_match(site: Site) -> None:
    path = f"{PATH}/{(await site.ada.create_product())['id']}"
    for url in (path, f"{PATH}?user_id={site.ada.id}&limit=1"):
        tag = (await site.call("GET", url)).headers["etag"]
        same = await site.call("GET", url, headers={"If-None-Match": f'"x", {tag}'})
        expect_equal((same.status_code, same.content), (304, b""), f"The answer for {url}")
        other = await site.call("GET", url, headers={"If-None-Match": '"x"'})
        expect_status(other, 200)


@section.rule(
    "A create that is repeated with its key gets the first answer, and makes nothing twice."
)
async def idempotency(site: Site) -> None:
    headers = {"Idempotency-Key": token_hex(8)}
    body = {"name": site.word("Once"), "price": 1}
    answers = [await site.ada.call("POST", PATH, json=body, headers=headers) for _ in range(3)]
    for answer in answers:
        expect_equal(expect_status(answer, 201), answers[0].json(), "The repeated answer")
    for answer in answers[1:]:
        expect_equal(answer.headers.get("idempotency-replayed"), "true", "Idempotency-Replayed")
    mine = expect_status(await site.ada.call("GET", f"{PATH}/my?limit=1000"), 200)["products"]
    expect_equal([each["name"] for each in mine].count(body["name"]), 1, "The number of products")


@section.rule("A key that is used with other content is 422.")
async def reused_key(site: Site) -> None:
    headers = {"Idempotency-Key": token_hex(8)}
    first = await site.ada.call("POST", PATH, json={"name": "A", "price": 1}, headers=headers)
    expect_status(first, 201)
    other = await site.ada.call("POST", PATH, json={"name": "B", "price": 1}, headers=headers)
    expect_problem(other, 422, "idempotency-key-reused")


@section.rule("A merge patch is taken by its own media type, too.")
async def merge_patch(site: Site) -> None:
    path = f"{PATH}/{(await site.ada.create_product())['id']}"
    headers = {"Content-Type": "application/merge-patch+json"}
    changed = await site.ada.call("PATCH", path, content=b'{"price": 2}', headers=headers)
    expect_equal(expect_status(changed, 200)["price"], 2, "The price")


@section.rule("A product's own key is unique among its owner's, and finds it.")
async def product_keys(site: Site) -> None:
    key = site.word("sku ä/")
    made = await site.ada.create_product(key=key)
    expect_equal(made["key"], key, "The key")
    body = {"name": "Another", "price": 1, "key": key}
    problem = expect_problem(await site.ada.call("POST", PATH, json=body), 409)
    expect_equal(faulty_fields(problem), ["/key"], "The taken field")
    expect_status(await site.bob.call("POST", PATH, json=body), 201)
    found = await site.ada.call("GET", f"{PATH}/my", params={"key": key})
    expect_equal(expect_status(found, 200)["products"], [made], "The products with the key")
