"""Hooks that give schemathesis live tokens; loaded by ``SCHEMATHESIS_HOOKS``.

After each request that may have ended the session, the next one gets a new token: of a new account
with the password in the document's examples, or, for operations of administrators, of the account
named by ``CATALOG_TEST_ADMIN`` if that is set.
"""

import os
from typing import Any
from uuid import uuid4

import httpx
import schemathesis

CLIENT = httpx.Client(base_url=os.environ["CATALOG_TEST_URL"])
PASSWORD = os.environ["CATALOG_TEST_PASSWORD"]
ADMIN = os.environ.get("CATALOG_TEST_ADMIN")


_kept: dict[bool, dict[str, str]] = {}
"""Tokens of the administrator (True) and of another account (False), until they may have ended."""


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:  # noqa: ARG001 (the library's signature)
    """Discard the tokens after a request that may have ended a session."""
    if response.status_code < 400 or response.status_code == 401:
        _kept.clear()


@schemathesis.auth(refresh_interval=None)
class FreshToken:
    """Source of tokens, which signs up or logs in if none is cached."""

    def get(self, case: Any, ctx: Any) -> str:  # noqa: ARG002 (the same)
        """Return an access token, or a refresh token for the operations that take one."""
        as_admin = bool(ADMIN) and case.path.startswith("/api/users")
        if as_admin not in _kept:
            _kept[as_admin] = self._new(as_admin=as_admin)
        kind = "refresh_token" if case.path == "/api/auth/refresh" else "access_token"
        # Empty once an example has created another administrator, who disabled the first.
        return _kept[as_admin].get(kind, "")

    def _new(self, *, as_admin: bool) -> dict[str, str]:
        if as_admin:
            name, path = str(ADMIN), "/api/auth/login"
            body = {"username": name, "password": PASSWORD}
        else:
            name, path = f"user-{uuid4().hex}", "/api/auth/signup"
            body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        tokens: dict[str, str] = CLIENT.post(path, json=body).json()
        return tokens

    def set(self, case: Any, data: str, ctx: Any) -> None:  # noqa: ARG002 (the same)
        """Send the token in the Authorization header."""
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
