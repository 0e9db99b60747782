"""Rules of API keys."""

from typing import Any

from catalog.conformance.rule import Section, expect, expect_problem, expect_status
from catalog.conformance.rules.accounts import expect_refused_soon
from catalog.conformance.site import Site

section = Section("API keys")


async def make(site: Site, scope: str) -> dict[str, Any]:
    """Make a key of ada's."""
    body = {"name": "conformance", "scope": scope}
    answer = await site.ada.call("POST", "/api/auth/keys", json=body)
    made: dict[str, Any] = expect_status(answer, 201)
    return made


@section.rule("A key is in the response that makes it and in no other.")
async def key_is_shown_once(site: Site) -> None:
    made = await make(site, "read")
    listed = expect_status(await site.ada.call("GET", "/api/auth/keys"), 200)
    expect(made["id"] in [each["id"] for each in listed["keys"]], "The key is not listed.")
    expect(made["key"] not in str(listed), "The list shows the key.")


@section.rule("A key of the scope write acts as its owner, one of the scope read writes nothing.")
async def key_scopes(site: Site) -> None:
    body = {"name": "Lamp", "price": 1}
    reading, writing = (await make(site, "read"))["key"], (await make(site, "write"))["key"]
    made = await site.call("POST", "/api/products", token=writing, json=body)
    path = f"/api/products/{expect_status(made, 201)['id']}"
    expect_status(await site.call("GET", "/api/products/my?limit=1", token=reading), 200)
    for answer in (
        await site.call("POST", "/api/products", token=reading, json=body),
        await site.call("PATCH", path, token=reading, json={"price": 2}),
        await site.call("DELETE", path, token=reading),
    ):
        expect_problem(answer, 403)
    expect_status(await site.call("DELETE", path, token=writing), 200)


@section.rule(
    "A key makes no keys, changes no passwords, ends no sessions and administers nothing."
)
async def keys_manage_nothing(site: Site) -> None:
    key = (await make(site, "write"))["key"]
    passwords = {"current_password": site.ada.password, "new_password": site.bob.password}
    for method, path, body in (
        ("POST", "/api/auth/keys", {"name": "another", "scope": "write"}),
        ("POST", "/api/auth/password", passwords),
        ("POST", "/api/auth/logout-all", None),
        ("GET", "/api/users", None),
    ):
        expect_problem(await site.call(method, path, token=key, json=body), 403)


@section.rule("A revoked key is refused within 2 seconds everywhere.")
async def key_revocation(site: Site) -> None:
    made = await make(site, "read")
    path = f"/api/auth/keys/{made['id']}"
    expect_status(await site.call("GET", "/api/products/my?limit=1", token=made["key"]), 200)
    expect_problem(await site.bob.call("DELETE", path), 404)
    expect_status(await site.ada.call("DELETE", path), 204)
    await expect_refused_soon(site, made["key"], "The revoked key")
