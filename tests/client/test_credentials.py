"""Sessions and API keys of the asynchronous client, against the running service."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from catalog.client import AsyncClient, Forbidden, Unauthenticated
from catalog.client.credentials import SessionCredentials
from tests.client.conftest import FaultyTransport
from tests.server.service import Service
from tests.support import PASSWORD


class TestSession:
    async def test_password_logs_in_when_it_is_needed(
        self, running: Service, ada: AsyncClient
    ) -> None:
        username = (await ada.me()).username

        async with AsyncClient(running.url, username=username, password=PASSWORD) as client:
            assert [product async for product in client.products(page_size=1, ids=[10**9])] == []
            assert (await client.me()).username == username
            await client.log_out()
            with pytest.raises(Unauthenticated) as caught:
                await client.me()

        assert (caught.value.code, caught.value.status) == ("token-missing", 401)

    async def test_wrong_password_is_unauthenticated(self, running: Service) -> None:
        async with AsyncClient(running.url, username="nobody", password="wrong one") as client:
            with pytest.raises(Unauthenticated) as caught:
                await client.me()

        assert caught.value.code == "credentials-wrong"
        assert caught.value.request_id

    async def test_expired_token_is_refreshed_once_however_many_requests_wait(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        credentials = ada._transport.credentials
        assert isinstance(credentials, SessionCredentials)
        credentials._access = "expired"

        accounts = await asyncio.gather(*(ada.me() for _ in range(50)))

        assert len({account.id for account in accounts}) == 1
        assert network.paths().count("POST /api/auth/refresh") == 1
        assert network.paths().count("POST /api/auth/login") == 0

    async def test_failed_refresh_is_sent_once_for_all_that_wait(
        self, running: Service, network: FaultyTransport
    ) -> None:
        async with httpx.AsyncClient(transport=network) as http:
            client = AsyncClient(running.url, refresh_token="x", http=http)

            outcomes = await asyncio.gather(
                *(client.me() for _ in range(20)), return_exceptions=True
            )

        assert {type(outcome) for outcome in outcomes} == {Unauthenticated}
        assert network.paths() == ["POST /api/auth/refresh"]

    async def test_ended_session_is_replaced_by_another_with_the_password(
        self, running: Service, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        username = (await ada.me()).username
        async with AsyncClient(running.url, username=username, password=PASSWORD) as other:
            await other.send("POST", "/api/auth/logout-all")
        network.requests.clear()

        assert (await ada.me()).username == username

        assert network.paths().count("POST /api/auth/login") == 1

    async def test_cancelled_request_does_not_cancel_the_refresh_of_others(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        credentials = ada._transport.credentials
        assert isinstance(credentials, SessionCredentials)
        credentials._access = ""
        first = asyncio.create_task(ada.me())
        others = [asyncio.create_task(ada.me()) for _ in range(5)]
        while credentials._renewal is None:
            await asyncio.sleep(0)

        first.cancel()

        await asyncio.gather(*others)
        assert network.paths().count("POST /api/auth/refresh") == 1

    async def test_api_key_signs_in_within_its_scope(
        self, running: Service, ada: AsyncClient
    ) -> None:
        expires_at = datetime.now(UTC) + timedelta(hours=1)
        key = await ada.create_api_key("reports", expires_at=expires_at)
        assert key.key
        assert key.key not in repr(key)
        assert key.expires_at == expires_at

        async with AsyncClient(running.url, key=key.key) as program:
            assert (await program.me()).id == (await ada.me()).id
            with pytest.raises(Forbidden) as caught:
                await program.create("Lamp", 1)
            assert caught.value.code == "scope-insufficient"
            assert [each.name for each in await ada.api_keys()] == ["reports"]
            await ada.revoke_api_key(key.id)
            with pytest.raises(Unauthenticated):
                await program.me()
