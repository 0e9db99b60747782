"""Rules of positions and changes, and of reads that are never stale."""

import asyncio
import json
from typing import Any

import httpx

from catalog.client.transport import lines_of
from catalog.conformance.rule import Section, expect, expect_equal, expect_problem, expect_status
from catalog.conformance.rules.lists import of_owner
from catalog.conformance.site import Site

section = Section("Changes")

PATH = "/api/products/changes"


async def write(site: Site, method: str, path: str, **options: Any) -> tuple[int, str, Any]:
    """Send a write, and return its position, its change and its body."""
    answer = await site.ada.call(method, f"/api/products{path}", **options)
    body = expect_status(answer, 200, 201)
    return int(answer.headers["catalog-position"]), answer.headers["catalog-change"], body


async def newest(site: Site) -> str:
    """Return the newest change."""
    answer = await site.call("GET", "/api/products?limit=1", headers={"Cache-Control": "no-cache"})
    return str(answer.headers["catalog-change"])


@section.rule("Every write has a position, and the log lists it there, without gaps and in order.")
async def change_log(site: Site) -> None:
    body = {"name": "Lamp", "price": 1}
    created, change, product = await write(site, "POST", "", json=body)
    updated, _, _ = await write(site, "PATCH", f"/{product['id']}", json={"price": 2})
    deleted, _, _ = await write(site, "DELETE", f"/{product['id']}")
    expect(created < updated < deleted, f"The positions are {created}, {updated}, {deleted}")
    expect(change.startswith(f"{created}."), f"Catalog-Change is {change!r} at {created}")
    answer = await site.call("GET", f"{PATH}?since={created - 1}&limit=1000")
    listed = expect_status(answer, 200)["changes"]
    positions = [each["position"] for each in listed]
    expect_equal(positions, list(range(created, created + len(listed))), "The positions")
    ours = [(each["position"], each["type"]) for each in listed if each["id"] == product["id"]]
    expected = [(created, "created"), (updated, "updated"), (deleted, "deleted")]
    expect_equal(ours, expected, "The changes of the product")
    expect_equal(listed[0]["product"], None, "The deleted product in the log")


@section.rule("A write that changes nothing takes no position.")
async def nothing_takes_no_position(site: Site) -> None:
    _, _, product = await write(site, "POST", "", json={"name": "Lamp", "price": 1})
    since = await newest(site)
    await write(site, "PATCH", f"/{product['id']}", json={"price": 1})
    listed = expect_status(await site.call("GET", f"{PATH}?since={since}&limit=1000"), 200)
    ours = [each for each in listed["changes"] if each["id"] == product["id"]]
    expect_equal(ours, [], "The changes of the product")


@section.rule("A read after a write shows it, by lists, products and positions.")
async def never_stale(site: Site) -> None:
    for _ in range(20):
        position, _, product = await write(site, "POST", "", json={"name": "Lamp", "price": 1})
        urls = (f"{of_owner(site.ada)}&limit=1", "/api/products?limit=200")
        for url in urls:
            answer = await site.call("GET", url)
            ids = [each["id"] for each in expect_status(answer, 200)["products"]]
            expect(product["id"] in ids, f"{url} lacks the product that was just created")
            found = int(answer.headers["catalog-position"])
            expect(found >= position, f"{url} is at position {found} after a write at {position}")
        await write(site, "DELETE", f"/{product['id']}")
        listed = expect_status(await site.call("GET", urls[0]), 200)["products"]
        expect(product["id"] not in [each["id"] for each in listed], "A deleted product is listed")


@section.rule("`wait` holds the response until there is a change, at most so many seconds.")
async def long_poll(site: Site) -> None:
    since = await newest(site)
    waiting = asyncio.create_task(site.call("GET", f"{PATH}?since={since}&wait=20"))
    await asyncio.sleep(0.3)
    _, _, product = await write(site, "POST", "", json={"name": "Lamp", "price": 1})
    found = expect_status(await waiting, 200)
    expect(found["changes"], "The long poll came back without a change.")
    while product["id"] not in [each["id"] for each in found["changes"]]:
        # Others have changed something before.
        answer = await site.call("GET", f"{PATH}?since={found['change']}&wait=5")
        found = expect_status(answer, 200)
        expect(found["changes"], "The change did not come.")


@section.rule("Server-sent events bring each change with its id, and Last-Event-ID resumes them.")
async def event_stream(site: Site) -> None:
    since = await newest(site)
    lamp = {"name": "Lamp \u2028", "price": 1}
    made = [await write(site, "POST", "", json=lamp) for _ in range(3)]
    expected = [(change, body["id"]) for _, change, body in made]
    for first, headers in ((0, {}), (1, {"Last-Event-ID": made[0][1]})):
        found = await _events(site, since, headers, until=expected[-1][0])
        ours = [each for each in found if each in expected]
        expect_equal(ours, expected[first:], "The events")


async def _events(
    site: Site, since: str, headers: dict[str, str], *, until: str
) -> list[tuple[str, int]]:
    """Return the ids of events and products of a stream, up to one of them."""
    found: list[tuple[str, int]] = []
    name = ""
    headers = {"Accept": "text/event-stream", **headers}
    async with site.http.stream("GET", f"{PATH}?since={since}", headers=headers) as answer:
        media_type = answer.headers.get("content-type", "")
        expect(media_type.startswith("text/event-stream"), f"The stream is {media_type!r}")
        async for line in lines_of(answer.aiter_bytes()):
            if line.startswith("id:"):
                name = line[3:].strip()
            elif line.startswith("data:"):
                found.append((name, json.loads(line[5:])["id"]))
                if name == until:
                    break
    return found


@section.rule("A change that this history does not have is 410, by page and as a stream.")
async def other_histories(site: Site) -> None:
    change = await newest(site)
    position = int(change.split(".")[0])
    for since in (f"{position}.0123abcdef", f"{position + 10**9}"):
        expect_problem(await site.call("GET", f"{PATH}?since={since}"), 410, "changes-gone")
        headers = {"Accept": "text/event-stream"}
        answer: httpx.Response = await site.call("GET", f"{PATH}?since={since}", headers=headers)
        expect_problem(answer, 410, "changes-gone")
