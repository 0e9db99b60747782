"""The service's verdict on a token, from an app without a database."""

from quart import Quart

from tests.http.wire import exchange
from tests.support import problem_of

GOOD = (503, "database-unavailable")
"""With a valid token a request gets as far as the database, which this app does not have."""
INVALID = (401, "token-invalid")
EXPIRED = (401, "token-expired")
WRONG_KIND = (401, "token-wrong-kind")


async def verdict(app: Quart, token: str, kind: str) -> tuple[int, str]:
    """Return the response to a token at a route that requires one of a kind."""
    path = {"access": "/api/products/my", "refresh": "/api/auth/refresh"}[kind]
    headers = [(b"authorization", b"Bearer " + token.encode("latin-1"))]
    return problem_of(await exchange(app, "GET", path, headers=headers))
