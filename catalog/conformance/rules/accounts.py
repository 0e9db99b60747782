"""Rules of accounts, tokens and sessions."""

import asyncio
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
from catalog.conformance.site import Site

section = Section("Accounts")

KNOWN_WITHIN_SECONDS = 2.0


async def expect_refused_soon(site: Site, token: str, what: str) -> None:
    """Require that a token is refused with 401 everywhere soon, and stays so."""
    loop = asyncio.get_running_loop()
    until = loop.time() + KNOWN_WITHIN_SECONDS
    refused = 0
    # Several requests in a row, because they may reach several workers.
    while refused < 8:
        answer = await site.call("GET", "/api/products/my", token=token)
        refused = refused + 1 if answer.status_code == 401 else 0
        expect(refused or loop.time() < until, f"{what} is accepted for more than 2 seconds")
        await asyncio.sleep(0.02)


def without_tokens(answer: httpx.Response) -> dict[str, Any]:
    """Return a problem without what differs between requests."""
    return {name: value for name, value in answer.json().items() if name != "request_id"}


@section.rule("Signing up answers 201 with the account and both tokens.")
async def sign_up(site: Site) -> None:
    name = site.word("conformance-new-")
    password = site.word("correct horse battery staple ")
    fields = {"username": name, "email": f"{name}@example.com", "password": password}
    answer = await site.call("POST", "/api/auth/signup", json=fields)
    made = expect_status(answer, 201)
    expected = {"id", "username", "email", "access_token", "refresh_token"}
    expect(expected <= made.keys(), f"The response lacks {sorted(expected - made.keys())}")
    expect_equal((made["username"], made["email"]), (name, f"{name}@example.com"), "The account")
    gone = await site.call(
        "DELETE", "/api/auth/me", token=made["access_token"], json={"password": password}
    )
    expect_status(gone, 204)


@section.rule("A name or address that is taken, in any case and width, is 409 and named.")
async def taken_names(site: Site) -> None:
    wide = site.ada.username.replace("a", "\uff41").upper()
    fields = {"username": wide, "email": site.bob.email.upper(), "password": site.ada.password}
    problem = expect_problem(await site.call("POST", "/api/auth/signup", json=fields), 409)
    expect_equal(sorted(faulty_fields(problem)), ["/email", "/username"], "The taken fields")


@section.rule("A sign-up with invalid fields is 422 and names them all, is_admin included.")
async def faulty_sign_up(site: Site) -> None:
    fields = {"username": "a@b", "email": "none", "password": "short", "is_admin": True}
    problem = expect_problem(await site.call("POST", "/api/auth/signup", json=fields), 422)
    named = set(faulty_fields(problem))
    expect({"/username", "/email", "/is_admin"} <= named, f"It names {sorted(named)}")


@section.rule("One logs in with the name or the address, in any case.")
async def log_in(site: Site) -> None:
    for name in (site.ada.username, site.ada.email, site.ada.username.upper()):
        body = {"username": name, "password": site.ada.password}
        found = expect_status(await site.call("POST", "/api/auth/login", json=body), 200)
        expect(found["access_token"] and found["refresh_token"], "There are no tokens.")
        user = {"id": site.ada.id, "username": site.ada.username, "email": site.ada.email}
        expect_equal(found["user"], {**user, "role": "user"}, "The user")


@section.rule("A wrong password and an unknown name get the same 401.")
async def wrong_credentials(site: Site) -> None:
    wrong = {"username": site.bob.username, "password": "a wrong password"}
    unknown = {"username": site.word("unknown-"), "password": "a wrong password"}
    first = await site.call("POST", "/api/auth/login", json=wrong)
    second = await site.call("POST", "/api/auth/login", json=unknown)
    for answer in (first, second):
        expect_problem(answer, 401)
    expect_equal(without_tokens(second), without_tokens(first), "The answer to an unknown name")


@section.rule("A refresh token gets a new access token, by POST and by GET.")
async def refresh(site: Site) -> None:
    for method in ("POST", "GET"):
        answer = await site.call(method, "/api/auth/refresh", token=site.ada.refresh_token)
        token = expect_status(answer, 200)["access_token"]
        expect_status(await site.call("GET", "/api/auth/me", token=token), 200)


@section.rule("Neither token is accepted in place of the other.")
async def token_kinds(site: Site) -> None:
    for path, token in (
        ("/api/products/my", site.ada.refresh_token),
        ("/api/auth/refresh", site.ada.access_token),
    ):
        expect_problem(await site.call("GET", path, token=token), 401, "token-wrong-kind")


@section.rule("A missing, altered or unsigned token is 401 with a challenge.")
async def forged_tokens(site: Site) -> None:
    header, payload, signature = site.ada.access_token.split(".")
    altered = ("A" if signature[0] != "A" else "B") + signature[1:]
    unsigned = "eyJhbGciOiJub25lIn0"
    for token in ("", "x", f"{header}.{payload}.{altered}", f"{unsigned}.{payload}."):
        expect_problem(await site.call("GET", "/api/products/my", token=token), 401)


@section.rule("A refresh token that was rotated yields the identical successor again for a while.")
async def rotation(site: Site) -> None:
    token = (await site.ada.log_in())["refresh_token"]
    found = []
    for _ in range(2):
        answer = await site.call("POST", "/api/auth/refresh", token=token, json={"rotate": True})
        found.append(expect_status(answer, 200)["refresh_token"])
    expect(found[0] != token, "The refresh token was not replaced.")
    expect_equal(found[1], found[0], "The second successor")


@section.rule("A session that was logged out is refused within 2 seconds everywhere; again is 204.")
async def log_out(site: Site) -> None:
    tokens = await site.ada.log_in()
    for _ in range(2):
        answer = await site.call("POST", "/api/auth/logout", token=tokens["access_token"])
        expect_status(answer, 204)
    await expect_refused_soon(site, tokens["access_token"], "The ended session's token")
    answer = await site.call("POST", "/api/auth/refresh", token=tokens["refresh_token"])
    expect_problem(answer, 401)
    expect_status(await site.ada.call("GET", "/api/products/my?limit=1"), 200)


@section.rule("One's own sessions are listed, and ended one by one; another's are 404.")
async def sessions(site: Site) -> None:
    tokens = await site.ada.log_in()
    answer = await site.call("GET", "/api/auth/sessions", token=tokens["access_token"])
    listed = expect_status(answer, 200)["sessions"]
    (current,) = [each["id"] for each in listed if each["current"]]
    expect_problem(await site.bob.call("DELETE", f"/api/auth/sessions/{current}"), 404)
    expect_status(await site.ada.call("DELETE", f"/api/auth/sessions/{current}"), 204)
    await expect_refused_soon(site, tokens["access_token"], "The ended session's token")


@section.rule("A new password takes the old one's place, and ends the other sessions.")
async def password_change(site: Site) -> None:
    eve = await site.sign_up("eve")
    others = await eve.log_in()
    old, eve.password = eve.password, site.word("another one entirely ")
    body = {"current_password": "not this", "new_password": eve.password}
    expect_problem(await eve.call("POST", "/api/auth/password", json=body), 403)
    body["current_password"] = old
    expect_status(await eve.call("POST", "/api/auth/password", json=body), 204)
    await expect_refused_soon(site, others["access_token"], "The other session's token")
    expect_status(await eve.call("GET", "/api/auth/me"), 200)
    credentials = {"username": eve.username, "password": old}
    expect_problem(await site.call("POST", "/api/auth/login", json=credentials), 401)
    await eve.log_in()


@section.rule("Users may not see or change other accounts.")
async def administration(site: Site) -> None:
    expect_problem(await site.ada.call("GET", "/api/users"), 403)
    expect_problem(await site.ada.call("GET", f"/api/users/{site.bob.id}"), 403)
    path = f"/api/users/{site.ada.id}"
    expect_problem(await site.ada.call("PATCH", path, json={"role": "admin"}), 403)


@section.rule("A deleted account takes its products along, and its tokens end.")
async def account_deletion(site: Site) -> None:
    carol = await site.sign_up("carol")
    product = await carol.create_product()
    expect_problem(await carol.call("DELETE", "/api/auth/me", json={"password": "not this"}), 403)
    body = {"password": carol.password}
    expect_status(await carol.call("DELETE", "/api/auth/me", json=body), 204)
    expect_problem(await site.call("GET", f"/api/products/{product['id']}"), 404)
    await expect_refused_soon(site, carol.access_token, "The deleted account's token")
