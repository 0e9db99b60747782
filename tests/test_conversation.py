"""A long conversation with the API, the same on every engine.

``conversation.txt`` has the expected requests and responses, with times, tokens, cursors, entity
tags and request ids blanked out. After an intended change, rewrite it:

    CATALOG_TEST_REWRITE=1 ./build.sh test --engine sqlite -k conversation
"""

import json
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from quart import Quart
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.models import Role, User
from catalog.http.context import app_state
from tests.support import Caller, Response

GOLDEN = Path(__file__).with_name("conversation.txt")

BLANKS = (
    (r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "<token>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "<time>"),
    (r"(?<=cursor=)[\w-]+", "<cursor>"),
    (r'(?<="next_cursor":")[\w-]+', "<cursor>"),
    (r'(?<="request_id":")\w+', "<id>"),
    (r'(?<=ETag: ")(\d+-)?[0-9a-f]{16}(?=")', r"\1<hash>"),
    (r'(?<="revocations_age_seconds":)[\d.e-]+', "<age>"),
    (r"(?<=Retry-After: )\d+", "<n>"),
    # A window of the rate limit may end in the middle of the conversation.
    (r'(?<=RateLimit: )("\w+");r=\d+;t=\d+', r"\1;r=<n>;t=<n>"),
)
SHOWN = (
    *("Content-Type", "Location", "ETag", "Link", "Allow", "WWW-Authenticate", "Cache-Control"),
    *("RateLimit-Policy", "RateLimit", "Retry-After"),
)

ADA = {"username": "Ada", "email": "Ada@Example.com", "password": "correct horse"}

BOB = {"username": "bob", "email": "bob@example.com", "password": "battery staple"}


Say = Callable[..., Awaitable[Response]]


class Transcript:
    """Client that records its requests and the responses."""

    def __init__(self, app: Quart) -> None:
        self._anyone = Caller(app)
        self._lines: list[str] = []

    async def say(
        self, method: str, path: str, body: Any = None, *, token: str = "", raw: bytes = b""
    ) -> Response:
        """Send one request; the body is a JSON value, or raw bytes sent as JSON."""
        sent = raw or (b"" if body is None else json.dumps(body, ensure_ascii=False).encode())
        headers = {"Content-Type": "application/json"} if sent else {}
        answer = await self._anyone.send(method, path, token=token, data=sent, headers=headers)
        who = " as somebody" if token else ""
        self._lines += ["", f"> {method} {path}{who}"]
        if sent:
            self._lines.append(f"> {sent.decode(errors='backslashreplace')}")
        self._lines.append(f"< {answer.status_code}")
        for name in SHOWN:
            # The test client adds a Content-Type to every response, also to those without a body.
            if name in answer.headers and not (name == "Content-Type" and not answer.body):
                self._lines.append(f"< {name}: {answer.headers[name]}")
        self._lines.append(answer.body.decode())
        return answer

    @property
    def text(self) -> str:
        """The transcript so far, with variable parts blanked out."""
        text = "\n".join(self._lines).strip() + "\n"
        for pattern, blank in BLANKS:
            text = re.sub(pattern, blank, text)
        return text


async def converse(app: Quart) -> str:
    """Sign up, log in, refresh, create, list and delete, with typical mistakes."""
    transcript = Transcript(app)
    say = transcript.say

    signed_up = (await say("POST", "/api/auth/signup", ADA)).json
    # Before any refused row, because the servers do not reuse its id.
    stranger = (await say("POST", "/api/auth/signup", BOB)).json["access_token"]
    await say("POST", "/api/auth/signup", {**ADA, "username": "\uff21\uff24\uff21"})
    await say("POST", "/api/auth/signup", {**ADA, "username": "x", "is_admin": True})
    await say("POST", "/api/auth/login", {"username": "ada", "password": "wrong horse"})
    await say("POST", "/api/auth/login", {"username": "nobody", "password": "wrong horse"})
    await say("POST", "/api/auth/login", {"username": "ADA", "password": "correct horse"})
    tokens = (
        await say(
            "POST", "/api/auth/login", {"username": "ada@example.com", "password": "correct horse"}
        )
    ).json
    access, refresh = tokens["access_token"], tokens["refresh_token"]
    await say("POST", "/api/auth/refresh", token=refresh)
    await say("GET", "/api/auth/refresh", token=refresh)
    await say("POST", "/api/auth/refresh", token=access)

    await say("POST", "/api/products", {"name": "Lamp", "price": 24.9})
    for name, price, description in (
        ("Lamp", 24.9, None),
        ("  Ünïcödé 🪔 lämp ", 0.1 + 0.2, "“quoted” \\ back\tslash\n%s %% _"),
        ("Schrank", 1e12, ""),
        ("0", 5e-324, "x" * 64),
        ("漢字", -0.0, "tail "),
    ):
        product = {"name": name, "price": price, "description": description}
        await say("POST", "/api/products", product, token=access)
    for refused in (
        {"name": "", "price": 1},
        {"name": " \u3000 ", "price": 1},
        {"name": "x" * 513, "price": 1},
        {"name": "Lamp", "price": -0.01},
        {"name": "Lamp", "price": 1e12 + 1},
        {"name": "Lamp", "price": "24.9"},
        {"name": "Lamp", "price": True},
        {"name": "Lamp", "price": 1, "owner": 7},
        {"name": "nul\0", "price": 1},
    ):
        await say("POST", "/api/products", refused, token=access)
    for raw in (
        b'{"name": "Lamp", "price": NaN}',
        b'{"name": "Lamp", "price": 1e400}',
        b'{"name": "Lamp", "name": "Lamp", "price": 1}',
        b'{"name": "\\ud800", "price": 1}',
        b'{"name": "\xff", "price": 1}',
        b"[" * 5000,
        b"{",
    ):
        await say("POST", "/api/products", raw=raw, token=access)

    await say("GET", "/api/products")
    page = (await say("GET", "/api/products?limit=2")).json
    page = (await say("GET", page["next"])).json
    await say("GET", page["next"])
    await say("GET", "/api/products/my?limit=1", token=signed_up["access_token"])
    await say("GET", "/api/products/my")
    await say("GET", "/api/products?limit=0&offset=3")
    await say("GET", "/api/products?cursor=forged")
    await say("GET", "/api/products/2")
    await say("PATCH", "/api/products/2", {"price": 0.1, "description": None}, token=access)
    await say("PATCH", "/api/products/2", {"price": 0.1}, token=access)
    await say("PATCH", "/api/products/2", {"name": None, "version": 9}, token=access)
    await say("PATCH", "/api/products/2", {"price": 1}, token=stranger)
    await say("PATCH", "/api/products/99", {"price": 1}, token=access)
    await say("GET", "/api/products/99")
    await say("DELETE", "/api/products/3", token=access)
    await say("DELETE", "/api/products/3", token=access)
    await say("DELETE", "/api/products/9223372036854775808", token=access)
    await say("DELETE", "/api/products/2", token=stranger)
    await say("GET", "/api/products/my", token=stranger)
    await say("PUT", "/api/products", token=access)
    await say("OPTIONS", "/api/products/2")
    await say("GET", "/api/products/")
    await say("GET", "/api/nothing")
    await say("GET", "/readyz")
    await talk_about_accounts(app, say, access=access, refresh=refresh)
    return transcript.text


async def talk_about_accounts(app: Quart, say: Say, *, access: str, refresh: str) -> None:
    """Rotate tokens, list and end sessions, change the account, and administer Bob's."""
    rotated = (await say("POST", "/api/auth/refresh", {"rotate": True}, token=refresh)).json
    again = (await say("POST", "/api/auth/refresh", {"rotate": True}, token=refresh)).json
    assert again["refresh_token"] == rotated["refresh_token"]
    await say("POST", "/api/auth/refresh", {"rotate": "yes"}, token=rotated["refresh_token"])
    sessions = (await say("GET", "/api/auth/sessions", token=access)).json["sessions"]
    await say("DELETE", f"/api/auth/sessions/{sessions[1]['id']}", token=access)
    await say("DELETE", f"/api/auth/sessions/{sessions[1]['id']}", token=access)
    await say("GET", "/api/auth/sessions", token=access)
    await say("GET", "/api/auth/sessions")

    await say("GET", "/api/auth/me", token=access)
    await say("PATCH", "/api/auth/me", {"email": "BOB@example.com"}, token=access)
    await say("PATCH", "/api/auth/me", {"email": "lovelace@example.com"}, token=access)
    new = {"current_password": "wrong horse", "new_password": "stapled horse"}
    await say("POST", "/api/auth/password", new, token=access)
    new["current_password"] = "correct horse"
    await say("POST", "/api/auth/password", {**new, "new_password": "short"}, token=access)
    await say("POST", "/api/auth/password", new, token=access)
    await say("POST", "/api/auth/login", {"username": "ada", "password": "correct horse"})

    await say("GET", "/api/users", token=access)
    await promote(app, 1)
    ada = {"username": "ada", "password": "stapled horse"}
    admin = (await say("POST", "/api/auth/login", ada)).json["access_token"]
    page = (await say("GET", "/api/users?limit=1", token=admin)).json
    await say("GET", page["next"], token=admin)
    await say("GET", "/api/users/2", token=admin)
    await say("GET", "/api/users/9223372036854775808", token=admin)
    bob_in = {"username": "bob", "password": BOB["password"]}
    token = (await say("POST", "/api/auth/login", bob_in)).json["access_token"]
    await say("PATCH", "/api/users/2", {"role": "root", "disabled": None}, token=admin)
    await say("PATCH", "/api/users/2", {"role": "admin"}, token=admin)
    await say("GET", "/api/users/1", token=token)
    await say("DELETE", "/api/users/2/sessions", token=admin)
    await say("PATCH", "/api/users/2", {"role": "user", "disabled": True}, token=admin)
    await say("GET", "/api/products/my", token=token)
    await say("POST", "/api/auth/login", bob_in)
    await say("PATCH", "/api/users/1", {"role": "user"}, token=admin)
    await say("DELETE", "/api/auth/me", {"password": "stapled horse"}, token=admin)

    await say("POST", "/api/auth/logout", token=access)
    await say("POST", "/api/auth/logout", token=access)
    await say("GET", "/api/auth/me", token=access)
    await say("POST", "/api/auth/logout-all", token=admin)
    await say("GET", "/api/users", token=admin)
    for _ in range(9):
        await Caller(app).log_in("NOBODY", "the same as before")
    await say("POST", "/api/auth/login", {"username": "nobody", "password": "x"})


async def promote(app: Quart, user_id: int) -> None:
    """Promote an account to administrator, as the command line does."""

    async def change(session: AsyncSession) -> None:
        await session.execute(update(User).where(User.id == user_id).values(role=Role.ADMIN))

    await app_state(app).database.transaction(change)


async def test_conversation_is_the_same_on_every_engine(app: Quart) -> None:
    said = await converse(app)

    if os.environ.get("CATALOG_TEST_REWRITE"):
        GOLDEN.write_text(said, encoding="utf-8")
    assert said.splitlines() == GOLDEN.read_text(encoding="utf-8").splitlines()
