"""Fixtures of the client's tests: a running service, and clients of it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from catalog.client import AsyncClient
from tests.server.service import Catalog, Service
from tests.support import PASSWORD

_numbers = count(1)


class FaultyTransport(httpx.AsyncBaseTransport):
    """A network with faults between a client and the service.

    Attributes:
        lost: responses to lose, after the service has sent them.
        unsent: requests to lose before they are sent.
        answers: responses to give in place of the service's, first one first.
        requests: the requests that were sent.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.unsent = 0
        self.answers: list[httpx.Response] = []
        self.requests: list[httpx.Request] = []
        self._network = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, or fail as planned."""
        if self.unsent:
            self.unsent -= 1
            raise httpx.ConnectError("planned", request=request)
        self.requests.append(request)
        if self.answers:
            return self.answers.pop(0)
        response = await self._network.handle_async_request(request)
        if self.lost:
            self.lost -= 1
            await response.aread()
            await response.aclose()
            raise httpx.ReadError("planned", request=request)
        return response

    def paths(self) -> list[str]:
        """Return methods and paths of the requests that were sent."""
        return [f"{request.method} {request.url.path}" for request in self.requests]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._network.aclose()


@pytest.fixture(scope="package")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Start one service for all tests that do not end its processes."""
    async with Catalog(tmp_path_factory.mktemp("client")).start() as service:
        yield await service.serving()


@pytest.fixture
async def network() -> AsyncIterator[FaultyTransport]:
    """Return the network of ``ada``, without faults so far."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(FaultyTransport())


def name() -> str:
    """Return the name of an account that no other test has."""
    return f"client{next(_numbers)}"


@pytest.fixture
async def ada(running: Service, network: FaultyTransport) -> AsyncIterator[AsyncClient]:
    """Return a client with an account of its own."""
    async with httpx.AsyncClient(transport=network, timeout=30) as http:
        client = AsyncClient(running.url, http=http, retry_seconds=10)
        username = name()
        await client.sign_up(username, f"{username}@example.com", PASSWORD)
        network.requests.clear()
        yield client


def problem(status: int, code: str, headers: Any = None) -> httpx.Response:
    """Return a refusal as the service sends it."""
    members = {"type": f"/problems/{code}", "status": status, "code": code, "detail": "Planned."}
    return httpx.Response(status, json=members, headers=headers)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Return the service, not yet started, with a database of its own."""
    return Catalog(tmp_path)
