"""Rules of lists and exports. Most lists are ada's own, so that a busy catalog changes nothing."""

import csv
import io
import json
from typing import Any

import httpx

from catalog.conformance.rule import (
    Section,
    expect,
    expect_equal,
    expect_problem,
    expect_status,
    faulty_fields,
)
from catalog.conformance.site import Account, Site

section = Section("Lists")

PATH = "/api/products"


def of_owner(account: Account) -> str:
    """Return the public list of one owner's products."""
    return f"{PATH}?user_id={account.id}"


async def names(site: Site, query: str, **options: Any) -> list[str]:
    """Return the names on a page of ada's products."""
    answer = await site.call("GET", f"{of_owner(site.ada)}&{query}", **options)
    return [each["name"] for each in expect_status(answer, 200)["products"]]


async def following(site: Site, page: dict[str, Any]) -> dict[str, Any]:
    """Return the page after another one."""
    url = httpx.URL(site.url).join(page["next"])
    found: dict[str, Any] = expect_status(await site.call("GET", str(url)), 200)
    return found


@section.rule("A page has `products`, newest first, and `next`, which Link repeats.")
async def page_shape(site: Site) -> None:
    made = [(await site.ada.create_product())["id"] for _ in range(3)]
    answer = await site.call("GET", f"{of_owner(site.ada)}&limit=2")
    page = expect_status(answer, 200)
    expect_equal([each["id"] for each in page["products"]], made[:0:-1], "The ids on the page")
    expect(str(page["next"]).startswith("/"), f"`next` is {page['next']!r}")
    expect_equal(answer.links.get("next", {}).get("url"), page["next"], "Link")
    fields = {
        "id",
        "name",
        "description",
        "price",
        "user_id",
        "version",
        "created_at",
        "updated_at",
    }
    missing = fields - page["products"][0].keys()
    expect(not missing, f"A product lacks {sorted(missing)}")
    mine = expect_status(await site.ada.call("GET", f"{PATH}/my?limit=2"), 200)
    expect_equal(mine["products"], page["products"], "The caller's own list")
    last = expect_status(await site.call("GET", f"{PATH}?ids={made[0]}"), 200)
    expect_equal((len(last["products"]), last["next"]), (1, None), "A page that is the last")


@section.rule(
    "A walk through all pages yields every product once, while others are created and deleted."
)
async def walks(site: Site) -> None:
    dora = await site.sign_up("dora")
    stay = [(await dora.create_product(f"Stay {number}", number % 3))["id"] for number in range(12)]
    go = (await dora.create_product("Go", 1))["id"]
    for sort in ("-id", "price"):
        page = expect_status(await site.call("GET", f"{of_owner(dora)}&limit=4&sort={sort}"), 200)
        found = [each["id"] for each in page["products"]]
        await dora.call("DELETE", f"{PATH}/{go}")
        while page["next"]:
            go = (await dora.create_product("Go", 1))["id"]
            page = await following(site, page)
            found += [each["id"] for each in page["products"]]
            await dora.call("DELETE", f"{PATH}/{go}")
        kept = sorted(each for each in found if each in stay)
        expect_equal(kept, stay, f"The products of a walk by {sort}")


@section.rule("A cursor is bound to its list, and cannot be forged: 400.")
async def cursors(site: Site) -> None:
    for _ in range(2):
        await site.ada.create_product()
    page = expect_status(await site.call("GET", f"{of_owner(site.ada)}&limit=1"), 200)
    cursor = httpx.URL(page["next"]).params["cursor"]
    forged = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    for url in (
        f"{of_owner(site.bob)}&limit=1&cursor={cursor}",
        f"{of_owner(site.ada)}&limit=1&sort=price&cursor={cursor}",
        f"{of_owner(site.ada)}&limit=1&cursor={forged}",
        f"{PATH}?cursor=x",
    ):
        expect_problem(await site.call("GET", url), 400)


@section.rule("Lists are sorted by name or price, either way, and filtered by price.")
async def sorting(site: Site) -> None:
    word = site.word("Sort")
    for name, price in (("b", 1), ("a", 3), ("C", 2)):
        await site.ada.create_product(f"{word} {name}", price)
    for sort, expected in (
        ("price", ["b", "C", "a"]),
        ("-price", ["a", "C", "b"]),
        ("name", ["C", "a", "b"]),
        ("-name", ["b", "a", "C"]),
        ("price&min_price=2", ["C", "a"]),
        ("price&min_price=1.5&max_price=2", ["C"]),
    ):
        found = [each.split()[1] for each in await names(site, f"q={word}&sort={sort}")]
        expect_equal(found, expected, f"The order by {sort}")


@section.rule("`q` finds products of which every word begins some word of name or description.")
async def search(site: Site) -> None:
    word = site.word("Such")
    await site.ada.create_product(f"{word} desk lamp", description="Warm Lïght")
    await site.ada.create_product(f"{word} chair")
    for q, count in (
        (word, 2),
        (f"{word} des lam", 1),
        (f"{word} light wa", 1),
        (f"{word} esk", 0),
    ):
        expect_equal(len(await names(site, f"q={q}")), count, f"The number of products for {q!r}")


@section.rule("`fields` cuts products down, `total` counts them, `ids` chooses them.")
async def choice_of_fields(site: Site) -> None:
    ids = [(await site.ada.create_product())["id"] for _ in range(2)]
    query = f"ids={ids[0]},{ids[1]}&fields=id,name&total=true&limit=1"
    page = expect_status(await site.call("GET", f"{PATH}?{query}"), 200)
    expect_equal(page["total"], 2, "`total`")
    expect_equal(page["products"], [{"id": ids[1], "name": "Lamp"}], "The products")


@section.rule(
    "Lists of values come with commas or repeated, flags as words or digits, empty is absent."
)
async def query_forms(site: Site) -> None:
    ids = [(await site.ada.create_product())["id"] for _ in range(2)]
    pages = [
        expect_status(await site.call("GET", f"{PATH}?{query}"), 200)
        for query in (
            f"ids={ids[0]},{ids[1]}&total=true",
            f"ids={ids[0]}&ids={ids[1]}&total=1",
            f"ids={ids[0]}%2C{ids[1]}&total=1&q=&limit=",
        )
    ]
    for page in pages:
        expect_equal((page["total"], page["products"]), (2, pages[0]["products"]), "The page")
    expect_problem(await site.call("GET", f"{PATH}?q=%FF"), 400)


@section.rule("An unknown or invalid parameter is 422 and named.")
async def invalid_parameters(site: Site) -> None:
    for name, value in (
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "x"),
        ("sort", "colour"),
        ("min_price", "-1"),
        ("ids", "x"),
        ("colour", "red"),
    ):
        problem = expect_problem(await site.call("GET", f"{PATH}?{name}={value}"), 422)
        places = [each.split("/")[0] for each in faulty_fields(problem)]
        expect_equal(places, [name], f"The faulty parameter of {name}={value}")


@section.rule("Both lists export all that matches as NDJSON and CSV, without a limit.")
async def exports(site: Site) -> None:
    word = site.word("Export")
    # With characters at which careless clients end a line.
    made = [await site.ada.create_product(f"{word} „{n}“, \u2028x", n) for n in range(3)]
    url = f"{of_owner(site.ada)}&q={word}&sort=id"
    answer = await site.call("GET", url, headers={"Accept": "application/x-ndjson"})
    expect_status(answer, 200)
    expect("catalog-change" in answer.headers, "The export has no Catalog-Change.")
    lines = [json.loads(line) for line in answer.text.rstrip("\n").split("\n")]
    expect_equal(lines, made, "The exported products")
    answer = await site.ada.call(
        "GET", f"{PATH}/my?q={word}&sort=id", headers={"Accept": "text/csv"}
    )
    expect_status(answer, 200)
    same = await site.call("GET", f"{url}&format=ndjson", headers={"Accept": "application/json"})
    expect_equal(same.text.count("\n"), 3, "The lines of the export by `format`")
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"), newline="")))
    found = [(int(row["id"]), row["name"], float(row["price"])) for row in rows]
    expected = [(each["id"], each["name"], each["price"]) for each in made]
    expect_equal(found, expected, "The exported rows")
