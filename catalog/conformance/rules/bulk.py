"""Rules of creating many products with one request."""

from typing import Any

from catalog.conformance.rule import Section, expect, expect_equal, expect_problem, expect_status
from catalog.conformance.rules.lists import names
from catalog.conformance.site import Site

section = Section("Bulk")

NDJSON = "application/x-ndjson"


async def send(site: Site, text: str, query: str = "", media_type: str = NDJSON) -> Any:
    """Send many products of ada's, and return the response."""
    headers = {"Content-Type": media_type}
    path = f"/api/products{query}"
    return await site.ada.call("POST", path, content=text.encode(), headers=headers)


def counts(report: dict[str, Any]) -> tuple[int, int, list[int]]:
    """Return what a report says: created, failed, and the lines of the errors."""
    lines = [error["line"] for error in report["errors"]]
    return report["created"], report["failed"], lines


@section.rule("Lines that are invalid fail by their number, the others are created.")
async def import_report(site: Site) -> None:
    word = site.word("Bulk")
    text = "".join(f'{{"name": "{name}", "price": 1}}\n' for name in (f"{word} 1", "", f"{word} 3"))
    report = expect_status(await send(site, text), 200)
    expect_equal(counts(report), (2, 1, [2]), "The report")
    expect_equal(await names(site, f"q={word}&sort=id"), [f"{word} 1", f"{word} 3"], "The products")


@section.rule("CSV with a header row is taken, quotes included.")
async def csv_import(site: Site) -> None:
    word = site.word("Csv")
    text = f'name,price,description\r\n"{word} ""x"", y",1.5,\r\n{word} z,2,Warm\r\n'
    report = expect_status(await send(site, text, media_type="text/csv"), 200)
    expect_equal(counts(report), (2, 0, []), "The report")
    expect_equal(
        await names(site, f"q={word}&sort=id"), [f'{word} "x", y', f"{word} z"], "The names"
    )


@section.rule("CSV of spreadsheets is taken: semicolons, decimal commas, a BOM, a `sep=` line.")
async def csv_dialects(site: Site) -> None:
    word = site.word("Excel")
    for text in (
        f"\ufeff Name ;PRICE;description\r\n{word} a;1,5;\r\n;;\r\n",
        f"sep=;\r\nname;price\r\n{word} b;2,5\r\n",
        f"name\tprice\r\n{word} c\t3,5\r\n",
    ):
        report = expect_status(await send(site, text, media_type="text/csv"), 200)
        expect_equal(counts(report), (1, 0, []), f"The report on {text!r}")
    expect_equal(
        await names(site, f"q={word}&sort=price"), [f"{word} {each}" for each in "abc"], "The names"
    )


@section.rule("`atomic=true` creates all or nothing: 422 with the errors.")
async def atomic_import(site: Site) -> None:
    word = site.word("Atom")
    text = f'{{"name": "{word}", "price": 1}}\n{{"name": "{word}", "price": -1}}\n'
    expect_problem(await send(site, text, "?atomic=true"), 422, "lines-invalid")
    expect_equal(await names(site, f"q={word}"), [], "The products")


@section.rule("`dry_run=true` reports as an import would, and writes nothing.")
async def dry_run(site: Site) -> None:
    word = site.word("Dry")
    report = expect_status(
        await send(site, f'{{"name": "{word}", "price": 1}}\nx\n', "?dry_run=true"), 200
    )
    expect_equal(counts(report), (1, 1, [2]), "The report")
    expect_equal(await names(site, f"q={word}"), [], "The products")


@section.rule("`created` and `failed` add up to the records that were sent.")
async def nothing_is_hidden(site: Site) -> None:
    text = '{"name": "a", "price": 1}\n\n[]\n{"name": "b"}\nnull\n{"name": "c", "price": 2}'
    report = expect_status(await send(site, text), 200)
    expect(report["created"] == 2, f"{report['created']} were created")
    expect_equal(report["failed"], 3, "`failed`")


@section.rule(
    "`mode=upsert` changes what its lines name, creates the rest, and twice changes nothing."
)
async def upsert(site: Site) -> None:
    key = site.word("sku-")
    lamp = await site.ada.create_product()
    foreign = await site.bob.create_product()
    text = (
        f'{{"id": {lamp["id"]}, "price": 5}}\n{{"key": "{key}", "name": "Keyed", "price": 1}}\n'
        f'{{"id": {foreign["id"]}, "price": 5}}\n{{"id": {lamp["id"]}, "version": 9, "price": 6}}\n'
    )
    kinds = ("created", "updated", "unchanged", "failed")
    for expected in ((1, 1, 0, 2), (0, 0, 2, 2)):
        report = expect_status(await send(site, text, "?mode=upsert"), 200)
        expect_equal(tuple(report[kind] for kind in kinds), expected, f"{kinds}")
    found = await site.ada.call("GET", f"/api/products/my?key={key}")
    expect_equal(
        len(expect_status(found, 200)["products"]), 1, "The number of products with the key"
    )
