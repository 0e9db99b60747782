"""Requests that show whether a caller's tokens are accepted, also at another instance."""

from typing import Any

from quart import Quart

from tests.support import Caller, Response


def caller_at(app: Quart, caller: Caller) -> Caller:
    """Return a caller with the same tokens at another instance."""
    elsewhere = Caller(app)
    elsewhere.access_token, elsewhere.refresh_token = caller.access_token, caller.refresh_token
    return elsewhere


async def mine(caller: Caller) -> Response:
    """Request a resource that requires a live session or a key."""
    return await caller.get("/api/products/my")


async def refresh(caller: Caller, method: str = "POST", **options: Any) -> Response:
    """Request a new access token, by default with the caller's refresh token."""
    token = options.pop("token", caller.refresh_token)
    return await caller.send(method, "/api/auth/refresh", token=token, **options)


async def tokens_work(caller: Caller) -> bool:
    """Tell whether both tokens of a caller are accepted."""
    with_access, with_refresh = await mine(caller), await refresh(caller)
    assert with_access.status_code == with_refresh.status_code
    return with_access.status_code == 200
