"""The deployment under test, and the throw-away accounts with which it is tested."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from catalog.client import AsyncClient, CatalogError

MAX_WAIT_SECONDS = 65.0
"""Longest ``Retry-After`` of a rate limit that is waited for: their windows are minutes."""


@dataclass(slots=True)
class Account:
    """A throw-away account.

    Attributes:
        site: where it is.
        access_token: its current access token.
        refresh_token: its current refresh token.
    """

    site: "Site"
    id: int
    username: str
    email: str
    password: str = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    signed_in_at: float = 0.0

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request with the access token."""
        return await self.site.call(method, path, token=self.access_token, **options)

    async def create_product(
        self, name: str = "Lamp", price: float = 1, **fields: Any
    ) -> dict[str, Any]:
        """Create a product, and return it."""
        body = {"name": name, "price": price, **fields}
        answer = await self.call("POST", "/api/products", json=body)
        product: dict[str, Any] = answer.raise_for_status().json()
        return product

    async def log_in(self) -> Mapping[str, Any]:
        """Begin another session, and return its tokens."""
        body = {"username": self.username, "password": self.password}
        answer = await self.site.call("POST", "/api/auth/login", json=body)
        tokens: Mapping[str, Any] = answer.raise_for_status().json()
        return tokens

    async def keep_fresh(self) -> None:
        """Get another access token if this one may expire soon."""
        now = asyncio.get_running_loop().time()
        if now - self.signed_in_at > 60:
            answer = await self.site.call("POST", "/api/auth/refresh", token=self.refresh_token)
            self.access_token = answer.raise_for_status().json()["access_token"]
            self.signed_in_at = now


class Site:
    """The deployment under test.

    Args:
        http: an HTTP client whose base URL is the deployment's.

    Attributes:
        ada: an account.
        bob: another one.
    """

    ada: Account
    bob: Account

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self._accounts: list[Account] = []

    @property
    def url(self) -> str:
        """The deployment's URL."""
        return str(self.http.base_url)

    def word(self, beginning: str) -> str:
        """Return a word that no account and no product has, with a given beginning."""
        return beginning + secrets.token_hex(4)

    async def call(
        self, method: str, path: str, *, token: str = "", **options: Any
    ) -> httpx.Response:
        """Send a request; one that a rate limit refuses is sent again when that allows it."""
        headers = {**options.pop("headers", {})}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        while True:
            answer = await self.http.request(method, path, headers=headers, **options)
            if answer.status_code != 429 or b'"rate-limited"' not in answer.content:
                return answer
            wait = float(answer.headers.get("retry-after", MAX_WAIT_SECONDS + 1))
            if wait > MAX_WAIT_SECONDS:
                return answer
            await asyncio.sleep(wait)

    async def begin(self) -> None:
        """Create the accounts that most rules need."""
        self.ada, self.bob = await self.sign_up("ada"), await self.sign_up("bob")

    async def sign_up(self, name: str) -> Account:
        """Create a throw-away account, which is deleted at the end."""
        username = self.word(f"conformance-{name}-")
        email, password = f"{username}@example.com", secrets.token_urlsafe(18)
        fields = {"username": username, "email": email, "password": password}
        answer = await self.call("POST", "/api/auth/signup", json=fields)
        tokens = answer.raise_for_status().json()
        now = asyncio.get_running_loop().time()
        account = Account(
            *(self, tokens["id"], username, email, password),
            *(tokens["access_token"], tokens["refresh_token"], now),
        )
        self._accounts.append(account)
        return account

    async def clean_up(self) -> list[str]:
        """Delete the accounts with their products; return the names of those that stay."""
        left = []
        for account in self._accounts:
            client = AsyncClient(
                self.url, username=account.username, password=account.password, http=self.http
            )
            try:
                await client.send("DELETE", "/api/auth/me", json={"password": account.password})
            except CatalogError:
                if not await self._is_gone(account):
                    left.append(account.username)
        self._accounts = []
        return left

    async def _is_gone(self, account: Account) -> bool:
        body = {"username": account.username, "password": account.password}
        return (await self.call("POST", "/api/auth/login", json=body)).status_code == 401
