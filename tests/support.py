"""Helpers for tests of the API: callers, and comparable problems."""

import asyncio
import gc
import inspect
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from quart import Quart
from quart.typing import TestClientProtocol

from catalog.http.request import Request, reset_current_request, set_current_request

PASSWORD = "correct horse battery staple"


class Response:
    """A response whose body has been read."""

    def __init__(self, status_code: int, headers: Any, body: bytes, parsed: Any) -> None:
        self.status_code = status_code
        self.headers = headers
        self.body = body
        self._parsed = parsed

    @property
    def json(self) -> Any:
        """The body as JSON, for any JSON media type."""
        assert self._parsed is not None, f"not JSON: {self.body[:200]!r}"
        return self._parsed


class Caller:
    """A client of the app, with or without tokens."""

    def __init__(self, app: Quart, tokens: dict[str, Any] | None = None) -> None:
        self.app = app
        self._client: TestClientProtocol = app.test_client()
        tokens = tokens or {}
        self.access_token: str | None = tokens.get("access_token")
        self.refresh_token: str | None = tokens.get("refresh_token")
        self.user_id: int | None = tokens.get("id") or tokens.get("user", {}).get("id")

    async def send(
        self, method: str, path: str, *, token: str | None = None, **options: Any
    ) -> Response:
        """Send a request, by default with the access token; a token of "" sends none."""
        headers = {**options.pop("headers", {})}
        bearer = self.access_token if token is None else token
        if bearer:
            headers.setdefault("Authorization", f"Bearer {bearer}")
        answer = await self._client.open(path, method=method, headers=headers, **options)
        body = await answer.get_data(as_text=False)
        is_json = "json" in (answer.mimetype or "") and body
        parsed = await answer.get_json(force=True) if is_json else None
        return Response(answer.status_code, answer.headers, body, parsed)

    async def get(self, path: str, **options: Any) -> Response:
        return await self.send("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Response:
        return await self.send("POST", path, **options)

    async def sign_up(self, username: str, **fields: Any) -> Response:
        """Request an account with that name."""
        fields = {"email": f"{username}@example.com", "password": PASSWORD, **fields}
        return await self.post("/api/auth/signup", json={"username": username, **fields})

    async def log_in(self, username: str, password: str = PASSWORD) -> Response:
        """Request tokens."""
        return await self.post("/api/auth/login", json={"username": username, "password": password})

    async def create_product(self, name: str, price: float = 9.5, **fields: Any) -> Response:
        """Create a product."""
        return await self.post("/api/products", json={"name": name, "price": price, **fields})

    async def import_products(self, count: int) -> Response:
        """Create products of one name with an import."""
        lines = b'{"name":"Rug","price":1}\n' * count
        content = {"Content-Type": "application/x-ndjson"}
        answer = await self.post("/api/products", data=lines, headers=content)
        assert answer.json["created"] == count
        return answer

    async def delete(self, product_id: int) -> Response:
        """Delete a product."""
        return await self.send("DELETE", f"/api/products/{product_id}")

    @classmethod
    async def signed_up(cls, app: Quart, username: str) -> Self:
        """Sign up, and return a caller with the new account's tokens."""
        answer = await cls(app).sign_up(username)
        assert answer.status_code == 201, answer.body
        return cls(app, answer.json)

    @classmethod
    async def logged_in(cls, app: Quart, username: str, password: str = PASSWORD) -> Self:
        """Log in, and return a caller with the account's tokens."""
        answer = await cls(app).log_in(username, password)
        assert answer.status_code == 200, answer.body
        return cls(app, answer.json)


async def until(condition: Callable[[], Any], *, within: float = 60.0) -> Any:
    """Poll a condition until it is true, and return its value.

    Args:
        condition: a function, or a coroutine function, which is awaited.
        within: seconds; the default is ample for a second's work on a busy machine.

    Raises:
        TimeoutError: it did not become true in time.
    """
    async with asyncio.timeout(within):
        while True:
            result = condition()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return result
            await asyncio.sleep(0.01)


async def at_once(count: int, ask: Callable[[int], Awaitable[Response]]) -> list[Response]:
    """Send concurrent requests, made by their numbers from 0, and return their responses."""
    return await asyncio.gather(*(ask(number) for number in range(count)))


@contextmanager
def handling(app: Quart | None = None, **scope: Any) -> Iterator[Request]:
    """Set the current request, for code that is called outside of one.

    Args:
        app: the app that handles it; without one its state is not available.
        scope: differences from a GET without headers.
    """
    base = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    request = Request(app or Quart("none"), base | scope, "request")
    token = set_current_request(request)
    try:
        yield request
    finally:
        reset_current_request(token)


def problem_of(answer: Response) -> tuple[int, str]:
    """Return an error's status and code, after checking the members common to all problems."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"/problems/{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    if answer.status_code in {429, 503}:
        assert int(answer.headers["Retry-After"]) >= 1
    return answer.status_code, problem["code"]


def fields_of(answer: Response) -> list[str]:
    """Return the locations of an error's faults: pointers, parameters or headers."""
    return [
        next(error[place] for place in ("pointer", "parameter", "header") if place in error)
        for error in answer.json.get("errors", [])
    ]


@contextmanager
def memory_traced() -> Iterator[Callable[[], int]]:
    """Yield a function that returns, after the block, the bytes that the block left allocated."""
    grown: list[int] = []
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: grown[0]
        gc.collect()
        grown.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
