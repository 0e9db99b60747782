"""Responses that the service does not send, whatever asked for them, are errors of the client."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from catalog.client import (
    AsyncClient,
    CatalogError,
    PreconditionFailed,
    UnexpectedResponse,
    UploadInterrupted,
)
from tests.client.conftest import FaultyTransport

URL = "http://127.0.0.1:9"

Call = Callable[[AsyncClient], Awaitable[Any]]


async def read_export(client: AsyncClient) -> list[Any]:
    async with client.export() as export:
        return [product async for product in export]


async def read_list(client: AsyncClient) -> list[Any]:
    return [product async for product in client.products()]


CALLS: dict[str, tuple[str, Call]] = {
    "account": ("application/json", lambda client: client.me()),
    "sign-up": ("application/json", lambda client: client.sign_up("eve", "eve@example.com", "x")),
    "key": ("application/json", lambda client: client.create_api_key("reports")),
    "keys": ("application/json", lambda client: client.api_keys()),
    "product": ("application/json", lambda client: client.get(1)),
    "list": ("application/json", read_list),
    "creation": ("application/json", lambda client: client.create("Lamp", 1)),
    "update": ("application/json", lambda client: client.update(1, {"price": 2})),
    "beginning": ("application/json", lambda client: anext(client.follow())),
    "export": ("application/x-ndjson", read_export),
    "events": ("text/event-stream", lambda client: anext(client.follow("0"))),
}

BODIES: dict[str, bytes] = {
    "no-json": b"<h1>Welcome</h1>",
    "no-utf-8": b'{"id": "\xff"}',
    "cut": b'{"id": 1, "name": "La',
    "empty": b"",
    "other-object": b'{"ok": true}',
    "list": b"[1]",
    "number": b"1",
    "null": b"null",
    "deep": b"[" * 100_000,
    "other-page": b'{"products": [], "next": 5}',
    "wrong-link": b'{"products": [], "next": "http://["}',
    "other-types": b'{"products": 5, "keys": [null], "id": 1}',
}


@pytest.fixture
async def anyone(network: FaultyTransport) -> AsyncIterator[AsyncClient]:
    """Return a client whose responses all come from the test."""
    async with httpx.AsyncClient(transport=network) as http:
        yield AsyncClient(URL, access_token="x", http=http)


def success(media_type: str, body: bytes, **headers: str) -> httpx.Response:
    """Return a success whose body is decoded when it is read."""

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    return httpx.Response(200, headers={"Content-Type": media_type, **headers}, content=pieces())


@pytest.mark.parametrize(("media_type", "call"), CALLS.values(), ids=CALLS)
class TestSuccess:
    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
    async def test_body_of_another_shape_is_unexpected(
        self,
        anyone: AsyncClient,
        network: FaultyTransport,
        media_type: str,
        call: Call,
        body: bytes,
    ) -> None:
        if media_type == "text/event-stream":
            body = b"id: 1.x\ndata: " + body + b"\n\n"
        elif media_type == "application/x-ndjson":
            body += b"\n"
        network.answers = [success(media_type, body, **{"Catalog-Change": "1.x"})]
        if call is CALLS["beginning"][1]:
            # It is only the head that matters there.
            network.answers = [success(media_type, body)]

        with pytest.raises(UnexpectedResponse):
            await call(anyone)

        assert len(network.requests) == 1

    async def test_body_that_cannot_be_decoded_is_unexpected(
        self, anyone: AsyncClient, network: FaultyTransport, media_type: str, call: Call
    ) -> None:
        headers = {"Content-Encoding": "gzip", "Catalog-Change": "1.x"}
        network.answers = [success(media_type, b"no gzip at all", **headers)]

        with pytest.raises(UnexpectedResponse):
            await call(anyone)

        assert len(network.requests) == 1


class TestExport:
    async def test_export_without_its_change_is_unexpected(
        self, anyone: AsyncClient, network: FaultyTransport
    ) -> None:
        network.answers = [success("application/x-ndjson", b"")]

        with pytest.raises(UnexpectedResponse):
            await read_export(anyone)


class TestUpload:
    async def test_report_of_another_shape_interrupts_the_upload(
        self, anyone: AsyncClient, network: FaultyTransport
    ) -> None:
        network.answers = [success("application/json", b'{"ok": true}')]

        with pytest.raises(UploadInterrupted) as caught:
            await anyone.upload([{"name": "Lamp", "price": 1}])

        assert isinstance(caught.value.__cause__, UnexpectedResponse)
        assert caught.value.lines == 0


class TestTokens:
    async def test_tokens_of_another_shape_are_unexpected(self, network: FaultyTransport) -> None:
        async with httpx.AsyncClient(transport=network) as http:
            for client in (
                AsyncClient(URL, http=http, username="eve", password="x"),
                AsyncClient(URL, http=http, refresh_token="x"),
            ):
                network.answers = [success("application/json", b"{}")]

                with pytest.raises(UnexpectedResponse):
                    await client.me()


class TestRefusal:
    @pytest.mark.parametrize(
        "members",
        [
            pytest.param({"code": ["conflict"]}, id="code-is-a-list"),
            pytest.param({"code": 5}, id="code-is-a-number"),
            pytest.param({"code": "conflict", "errors": 5}, id="errors-is-a-number"),
            pytest.param({"code": "conflict", "errors": [5, None]}, id="errors-are-numbers"),
            pytest.param({"code": "precondition-failed", "current": {"id": 1}}, id="current"),
        ],
    )
    async def test_problem_of_another_shape_is_an_error_of_the_client(
        self, anyone: AsyncClient, network: FaultyTransport, members: dict[str, Any]
    ) -> None:
        network.answers = [httpx.Response(409, text=json.dumps(members))]

        with pytest.raises(CatalogError) as caught:
            await anyone.create("Lamp", 1)

        if isinstance(caught.value, PreconditionFailed):
            assert caught.value.current is None

    async def test_problem_that_cannot_be_decoded_is_unexpected(
        self, anyone: AsyncClient, network: FaultyTransport
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"no gzip at all"

        headers = {"Content-Encoding": "gzip"}
        network.answers = [httpx.Response(409, headers=headers, content=pieces())]

        with pytest.raises(UnexpectedResponse):
            await anyone.create("Lamp", 1)
