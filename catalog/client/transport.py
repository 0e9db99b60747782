"""Requests with retries: jitter, ``Retry-After``, and only what may be repeated.

The few lines of the loop are our own: whether to repeat depends on the request, on the code of the
problem and on whether anything was sent, which a library's decorators would be told one by one.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from catalog.client.credentials import Credentials
from catalog.client.errors import (
    CatalogError,
    Conflict,
    ConnectionFailed,
    RateLimited,
    Refused,
    Unavailable,
    UnexpectedResponse,
    error_of,
)

FIRST_DELAY_SECONDS = 0.1
"""Longest delay before the first retry; it doubles with each further one."""

MAX_DELAY_SECONDS = 5.0

# Nothing was sent.
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# Refused before any work was done.
_UNSTARTED: Final = {"overloaded", "not-ready"}
# Of a proxy that reaches no instance of the service.
_GATEWAY: Final = {502, 503, 504}


# Values of the query parameter ``format``.
_FORMATS: Final = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request of the API.

    Attributes:
        method: the method.
        path: the path, or a URL that the service gave.
        is_repeatable: whether to send it twice has the effect of sending it once.
        is_public: whether it needs no token, and gets none, so that caches can answer it.
    """

    method: str
    path: str
    is_repeatable: bool = True
    is_public: bool = False
    json: Any = None
    content: bytes | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: httpx.Timeout | None = None


class Transport:
    """Sends requests with credentials, and repeats those that may be repeated.

    Args:
        http: the HTTP client, whose base URL is the service's.
        credentials: the caller's.
        retry_seconds: seconds for which a request is repeated.
    """

    def __init__(
        self, http: httpx.AsyncClient, credentials: Credentials, *, retry_seconds: float
    ) -> None:
        self.http = http
        self.credentials = credentials
        self.retry_seconds = retry_seconds

    async def send(self, request: Request) -> httpx.Response:
        """Send a request and return the whole response, which is a success.

        Raises:
            Refused: the service refused it.
            ConnectionFailed: there was no complete response.
            UnexpectedResponse: the response is not the service's.
        """
        return await self._persist(request, whole=True)

    async def post(
        self, path: str, *, json: Mapping[str, Any] | None = None, token: str = ""
    ) -> httpx.Response:
        """Send a request of the credentials themselves, which may be repeated."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.send(Request("POST", path, is_public=True, json=json, headers=headers))

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[httpx.Response]:
        """Send a request, and provide the response, which is a success, before its body is read."""
        response = await self._persist(request, whole=False)
        try:
            yield response
        finally:
            await response.aclose()

    async def _persist(self, request: Request, *, whole: bool) -> httpx.Response:
        """Send a request until it succeeds, as long as it may be repeated."""
        clock = asyncio.get_running_loop().time
        until = clock() + self.retry_seconds
        attempt = 0
        while True:
            outcome = await self._attempt(request, whole=whole)
            if isinstance(outcome, httpx.Response):
                return outcome
            outcome.was_repeated = attempt > 0
            delay = delay_before_repeat(outcome, attempt, is_repeatable=request.is_repeatable)
            if delay is None or clock() + delay > until:
                raise outcome
            attempt += 1
            await asyncio.sleep(delay)

    async def _attempt(self, request: Request, *, whole: bool) -> httpx.Response | CatalogError:
        """Send a request once, or twice if its token had to be renewed."""
        try:
            token = "" if request.is_public else await self.credentials.token(self)
            response = await self._send_once(request, token)
            if response.status_code == 401 and token:
                refusal = error_of(response)
                if not await self.credentials.renew(self, token, refusal):
                    return refusal
                response = await self._send_once(request, await self.credentials.token(self))
            if whole:
                await _read(response)
        except httpx.TransportError as fault:
            failure = ConnectionFailed(f"{request.method} {request.path}: {fault!r}")
            failure.__cause__ = fault
            return failure
        except httpx.RequestError as fault:
            # A body that is not in the coding it names, or redirects without end.
            unexpected = UnexpectedResponse(f"{request.method} {request.path}: {fault!r}")
            unexpected.__cause__ = fault
            return unexpected
        if not response.is_success:
            return error_of(response)
        return response if _is_expected(request, response) else await _unexpected(response)

    async def _send_once(self, request: Request, token: str) -> httpx.Response:
        headers = {**request.headers}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        built = self.http.build_request(
            request.method,
            request.path,
            json=request.json,
            content=request.content,
            params=request.params or None,
            headers=headers,
            timeout=request.timeout or self.http.timeout,
        )
        if built.url.host != self.http.base_url.host or built.url.port != self.http.base_url.port:
            # A link that leads elsewhere must not get the token.
            raise UnexpectedResponse(f"The service referred to another one: {built.url}")
        response = await self.http.send(built, stream=True)
        if not response.is_success:
            await _read(response)
        return response


def delay_before_repeat(error: CatalogError, attempt: int, *, is_repeatable: bool) -> float | None:
    """Return the seconds to wait before a request is sent again; None if it must not be.

    Args:
        error: the outcome of the last attempt.
        attempt: the number of that attempt, from 0.
        is_repeatable: whether to send it twice has the effect of sending it once.
    """
    if not _may_repeat(error, is_repeatable):
        return None
    # Full jitter, so that clients that failed together do not return together.
    jitter = random.uniform(0, min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**attempt))  # noqa: S311 (no secret)
    retry_after = error.retry_after if isinstance(error, Refused) else None
    return jitter + (retry_after or 0)


def _may_repeat(error: CatalogError, is_repeatable: bool) -> bool:
    if isinstance(error, ConnectionFailed):
        return is_repeatable or isinstance(error.__cause__, _UNSENT)
    if isinstance(error, RateLimited):
        return error.code == "rate-limited"
    if isinstance(error, Unavailable):
        return is_repeatable or error.code in _UNSTARTED
    if isinstance(error, Conflict):
        return error.code == "idempotency-key-in-use"
    if isinstance(error, Refused):
        return is_repeatable and error.status == 408
    return is_repeatable and isinstance(error, UnexpectedResponse) and error.status in _GATEWAY


def _is_expected(request: Request, response: httpx.Response) -> bool:
    """Return whether a success has a media type that the request accepts, or no body."""
    if "content-type" not in response.headers:
        return True
    # As for the service, the parameter precedes the header.
    named = _FORMATS.get(response.request.url.params.get("format", ""))
    accepted = named or httpx.Headers(request.headers).get("accept", "application/json")
    media_type = _without_parameters(response.headers["content-type"])
    kind = media_type.partition("/")[0]
    ranges = {_without_parameters(each) for each in accepted.split(",")}
    return not ranges.isdisjoint({media_type, f"{kind}/*", "*/*"})


def _without_parameters(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


async def _unexpected(response: httpx.Response) -> UnexpectedResponse:
    """Return the error of a success that is not the service's, such as the page of a Wi-Fi."""
    await response.aclose()
    media_type = response.headers["content-type"]
    return UnexpectedResponse(f"{response.status_code} with {media_type}", status=200)


async def _read(response: httpx.Response) -> None:
    try:
        await response.aread()
    except httpx.DecodingError:
        # The connection still has the rest of the body.
        await response.aclose()
        raise


async def lines_of(body: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the lines of a body, which end with line feeds alone.

    httpx also ends lines at the other characters that Unicode has for it, which JSON may contain.

    Raises:
        ConnectionFailed: the connection ended before the body did.
        UnexpectedResponse: the body is not in the coding it names, or no UTF-8.
    """
    rest = b""
    try:
        async for piece in body:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line.decode()
        if rest:
            yield rest.decode()
    except httpx.TransportError as fault:
        raise ConnectionFailed(f"The response was interrupted: {fault!r}") from fault
    except (httpx.DecodingError, UnicodeDecodeError) as fault:
        raise UnexpectedResponse(f"The response is damaged: {fault!r}", status=200) from fault
