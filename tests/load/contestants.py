"""Servers to measure: the service, nginx in front of it, its peers, and nginx with a file."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import jwt

from catalog.auth.seed_data import username_of
from tests.load.processes import cpu_seconds
from tests.load.stacks import PEERS

WORKERS = 2
START_TIMEOUT_SECONDS = 180
QUIET_TIMEOUT_SECONDS = 20
PASSWORD = "correct horse battery staple"
LIMIT = 100
HOT_PATH = f"/api/products?limit={LIMIT}"
TOKEN_SECONDS = 86_400
ACCOUNTS = 300

CATALOG = "catalog"
LOGGING = "catalog-logging"
BEHIND_NGINX = "catalog-nginx"
FILE = "nginx-file"
EARLIER = "earlier"
EARLIER_BEHIND_NGINX = "earlier-nginx"
COUNTERPARTS = {CATALOG: EARLIER, BEHIND_NGINX: EARLIER_BEHIND_NGINX}
"""Another commit of each server, for comparison."""


@dataclass(frozen=True)
class Contestant:
    """A running server.

    Attributes:
        name: ``CATALOG``, ``BEHIND_NGINX``, their ``COUNTERPARTS``, ``LOGGING``, ``FILE`` or one of
            ``PEERS``.
        title: name in tables.
        url: base URL.
        pids: of its processes, whose descendants count, too.
        secret: that signs its tokens.
        tls_url: base URL over TLS, if it has one.
    """

    name: str
    title: str
    url: str
    pids: tuple[int, ...]
    secret: str = ""
    tls_url: str = ""

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes so far."""
        return sum(map(cpu_seconds, self.pids))

    def token(self) -> str:
        """Return an access token of the first sample account."""
        if self.name not in PEERS or self.name == "obvious":
            return str(self._log_in()["access_token"])
        return self._signed("access")

    def refresh_token(self) -> str:
        """Return a refresh token of the first sample account."""
        if self.name in PEERS:
            return self._signed("refresh")
        return str(self._log_in()["refresh_token"])

    def _signed(self, kind: str) -> str:
        claims = {"sub": "1", "exp": int(time.time()) + TOKEN_SECONDS, "type": kind}
        return jwt.encode(claims, self.secret, "HS256")

    def _log_in(self) -> dict[str, Any]:
        body = {"username": username_of(1), "password": PASSWORD}
        tokens: dict[str, Any] = json.loads(self.ask("/api/auth/login", json.dumps(body).encode()))
        return tokens

    def position(self) -> int:
        """Return the position of the last change, by the service."""
        request = Request(f"{self.url}/api/products?limit=1")  # noqa: S310 (our own)
        with urlopen(request, timeout=5) as answer:  # noqa: S310 (the same)
            return int(answer.headers["Catalog-Position"])

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        *,
        media_type: str = "application/json",
        token: str = "",
        timeout: float = 5,
    ) -> bytes:
        """Send one request; return the body of the answer.

        Raises:
            OSError: there was no answer, or an error status.
        """
        headers = {} if body is None else {"Content-Type": media_type}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = Request(self.url + path, body, headers)  # noqa: S310 (our own)
        with urlopen(request, timeout=timeout) as answer:  # noqa: S310 (the same)
            content: bytes = answer.read()
        return content

    async def quiet(self) -> None:
        """Wait until the server has finished all earlier work."""
        deadline = time.monotonic() + QUIET_TIMEOUT_SECONDS
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            await asyncio.sleep(0.25)
            now = self.cpu_seconds()
            if now - before <= 0.03:
                return
            before = now
