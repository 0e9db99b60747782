"""The service with a relay between it and its database."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import URL

from tests.faults.proxy import DatabaseProxy, relayed
from tests.server.recording_client import Client
from tests.server.service import Catalog, Service
from tests.support import PASSWORD


@asynccontextmanager
async def behind_relay(
    catalog: Catalog, url: URL
) -> AsyncIterator[tuple[DatabaseProxy, Service, Client]]:
    """Start the service with one worker, and its database connections through a relay."""
    async with relayed(url) as relay:
        catalog.keep_deadlines()
        catalog.environment["DATABASE_URL"] = relay.url.render_as_string(hide_password=False)
        async with catalog.start() as service:
            await service.serving()
            fields = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
            connection = await service.connect()
            answer = await connection.ask("POST", "/api/auth/signup", body=fields)
            tokens = json.loads(answer.body)
            client = Client(service, tokens["access_token"], tokens["refresh_token"])
            for _ in range(20):
                await client.create()
            yield relay, service, client
