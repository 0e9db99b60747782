"""The service on a database server that takes faults, and clients of it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.faults.clients import ClientProcess, Clients, client_process
from tests.faults.proxy import DatabaseProxy, relayed
from tests.faults.scale import Scale
from tests.faults.servers import DatabaseServer
from tests.server.service import Catalog, Service
from tests.support import PASSWORD

CLIENTS = 32
WORKERS = 2
USERNAME = "ada"
PATH = "/api/products"


class Site:
    """The service on a database server, and the data of its account.

    Attributes:
        server: of the database.
        database: its name.
        service: with two workers.
        token: an access token of ``USERNAME``.
        shared: ids of products that are never deleted.
        scale: of the checks.
        proxy: between service and database; None if they are connected directly.
    """

    def __init__(
        self,
        server: DatabaseServer,
        database: str,
        service: Service,
        clients: ClientProcess,
        scale: Scale,
        proxy: DatabaseProxy | None = None,
    ) -> None:
        self.server = server
        self.scale = scale
        self.database = database
        self.service = service
        self.token = ""
        self.shared: list[int] = []
        self._proxy = proxy
        self._clients = clients

    @property
    def proxy(self) -> DatabaseProxy:
        assert self._proxy is not None
        return self._proxy

    async def prepare(self) -> None:
        """Create an account and a few products."""
        self.token = await self.service.sign_up(USERNAME)
        self.shared = [await self.create(f"Lamp {number}") for number in range(20)]

    async def ask(self, method: str, path: str, *fields: str, body: Any = None) -> Any:
        """Send one request on a new connection; return the answer."""
        connection = await self.service.connect()
        try:
            return await connection.ask(method, path, *fields, token=self.token, body=body)
        finally:
            await connection.close()

    async def create(self, name: str) -> int:
        answer = await self.ask("POST", PATH, body={"name": name, "price": 1})
        assert answer.status == 201, answer.body
        return int(json.loads(answer.body)["id"])

    @asynccontextmanager
    async def clients(self, count: int = CLIENTS) -> AsyncIterator[Clients]:
        """Run clients inside the block."""
        await self.renew_token()
        asking = self._clients.asking(
            self.service.url, self.token, USERNAME, self.shared, count=count
        )
        async with asking as clients:
            # Time for each pooled connection to the database to be opened.
            await asyncio.sleep(0.5)
            yield clients

    async def renew_token(self) -> None:
        """Log in again: access tokens live for 15 minutes."""
        credentials = {"username": USERNAME, "password": PASSWORD}
        self.token, answer = "", await self.ask("POST", "/api/auth/login", body=credentials)
        assert answer.status == 200, answer.body
        self.token = json.loads(answer.body)["access_token"]

    async def recovered(self) -> float:
        """Wait until reads and writes succeed; return the elapsed seconds."""
        began = time.monotonic()
        async with asyncio.timeout(60):
            for method, path, body in (
                ("GET", PATH, None),
                ("POST", PATH, {"name": "x", "price": 1}),
            ):
                while (await self.ask(method, path, body=body)).status >= 300:
                    await asyncio.sleep(0.02)
        return time.monotonic() - began


@asynccontextmanager
async def site_on(
    server: DatabaseServer,
    folder: Path,
    scale: Scale,
    *,
    through_proxy: bool = False,
    definitions: Mapping[str, str] = MappingProxyType({}),
    **environment: str,
) -> AsyncIterator[Site]:
    """Run the service on a database of its own for the duration of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    database = await server.create_database()
    url = server.url_of(database)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(relayed(url)) if through_proxy else None
        target = proxy.url if proxy else url
        environment["DATABASE_URL"] = target.set(drivername="mysql").render_as_string(False)
        catalog = Catalog(folder)
        catalog.keep_deadlines()
        catalog.definitions |= definitions
        starting = catalog.start(f"--workers={WORKERS}", **environment)
        service = await (await stack.enter_async_context(starting)).serving()
        clients = await stack.enter_async_context(client_process())
        site = Site(server, database, service, clients, scale, proxy)
        await site.prepare()
        yield site
