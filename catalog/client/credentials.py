"""Credentials: an API key, a password, or a refresh token; and their silent renewal.

However many requests find that the access token has expired, one of them renews it and the others
wait for that.
"""

import asyncio
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Protocol

import httpx

from catalog.client.errors import CatalogError, Refused, Unauthenticated
from catalog.client.responses import contents


class Sender(Protocol):
    """Sends requests that need no token."""

    async def post(
        self, path: str, *, json: Mapping[str, Any] | None = None, token: str = ""
    ) -> httpx.Response:
        """Send a request, and return the response, which is a success."""


class Credentials:
    """No credentials: public requests only."""

    async def token(self, sender: Sender) -> str:  # noqa: ARG002 (for the other kinds)
        """Return the token to send, or an empty text for none."""
        return ""

    async def renew(self, sender: Sender, stale: str, refusal: CatalogError) -> bool:  # noqa: ARG002 (as above)
        """Replace a token that was refused; return whether another attempt makes sense."""
        return False


class KeyCredentials(Credentials):
    """An API key.

    Args:
        key: the key.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    async def token(self, sender: Sender) -> str:  # noqa: ARG002 (for the other kinds)
        """Return the key."""
        return self._key


class SessionCredentials(Credentials):
    """A session: tokens, and the password with which to begin another one, if there is one.

    Args:
        username: the username or e-mail address.
        password: the password.
        access_token: an access token.
        refresh_token: a refresh token.
    """

    def __init__(
        self,
        *,
        username: str = "",
        password: str = "",
        access_token: str = "",
        refresh_token: str = "",
    ) -> None:
        self._login = {"username": username, "password": password} if username else None
        self._access = access_token
        self.refresh_token = refresh_token
        self._renewal: asyncio.Task[None] | None = None

    async def token(self, sender: Sender) -> str:
        """Return the access token, after logging in if there is none."""
        if not self._access:
            await self._renewed(sender)
        return self._access

    async def renew(self, sender: Sender, stale: str, refusal: CatalogError) -> bool:
        """Replace an access token that was refused; return whether there is another one now."""
        if not isinstance(refusal, Unauthenticated):
            return False
        if self._access == stale:
            await self._renewed(sender)
        return self._access != stale

    async def _renewed(self, sender: Sender) -> None:
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew(sender))
            self._renewal.add_done_callback(self._forget)
        # Shielded: the others still wait for it when this request is cancelled.
        await asyncio.shield(self._renewal)

    def _forget(self, renewal: asyncio.Task[None]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # Retrieved, so that asyncio does not log it if nothing waits.

    async def _renew(self, sender: Sender) -> None:
        if self.refresh_token:
            try:
                answer = await sender.post("/api/auth/refresh", token=self.refresh_token)
            except Refused as refusal:
                # The session has ended; with a password there can be another one.
                if not isinstance(refusal, Unauthenticated) or self._login is None:
                    raise
            else:
                self._access = contents(answer, itemgetter("access_token"))
                return
        if self._login is None:
            return
        answer = await sender.post("/api/auth/login", json=self._login)
        contents(answer, self.accept)

    def accept(self, tokens: Mapping[str, Any]) -> None:
        """Take the tokens of a log-in or a sign-up."""
        self._access, self.refresh_token = tokens["access_token"], tokens["refresh_token"]
