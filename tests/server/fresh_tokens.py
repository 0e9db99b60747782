"""Gives each request of schemathesis a session of its own; loaded by ``SCHEMATHESIS_HOOKS``.

What is for administrators comes from the one that there is, all else from a new account, whose
password is the one of the examples in the document.
"""

import os
from typing import Any
from uuid import uuid4

import httpx
import schemathesis

CLIENT = httpx.Client(base_url=os.environ["CATALOG_TEST_URL"])
PASSWORD = os.environ["CATALOG_TEST_PASSWORD"]


@schemathesis.auth(refresh_interval=None)
class FreshToken:
    """Signs up, or in, before each request."""

    def get(self, case: Any, ctx: Any) -> str:  # noqa: ARG002 (the library's signature)
        """A new access token."""
        if case.path.startswith("/api/users"):
            name, path = "admin", "/api/auth/login"
            body = {"username": name, "password": PASSWORD}
        else:
            name, path = f"user-{uuid4().hex}", "/api/auth/signup"
            body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        answer = CLIENT.post(path, json=body)
        # No token once the examples have made another administrator who disabled the first.
        return str(answer.json().get("access_token", ""))

    def set(self, case: Any, data: str, ctx: Any) -> None:  # noqa: ARG002 (the same)
        """Send it along."""
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
