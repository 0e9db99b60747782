"""Gives requests of schemathesis a session that none has ended; loaded by ``SCHEMATHESIS_HOOKS``.

After each that may have ended it, the next one gets another: of a new account, whose password is
the one of the examples in the document, or of the administrator that ``CATALOG_TEST_ADMIN`` names,
if it names one, for what is for administrators.
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
"""The administrator's tokens, and another's, until they are spent."""


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:  # noqa: ARG001 (the library's signature)
    """Forget the tokens after what may have ended a session."""
    if response.status_code < 400 or response.status_code == 401:
        _kept.clear()


@schemathesis.auth(refresh_interval=None)
class FreshToken:
    """Signs up, or in, where no token is left."""

    def get(self, case: Any, ctx: Any) -> str:  # noqa: ARG002 (the same)
        """Return an access token, or a refresh token for what takes one."""
        as_admin = bool(ADMIN) and case.path.startswith("/api/users")
        if as_admin not in _kept:
            _kept[as_admin] = self._new(as_admin=as_admin)
        kind = "refresh_token" if case.path == "/api/auth/refresh" else "access_token"
        # None once the examples have made another administrator who disabled the first.
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
        """Send it along."""
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
