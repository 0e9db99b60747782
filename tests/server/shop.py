"""The service behind nginx, and an account that creates products."""

from pathlib import Path
from uuid import uuid4

import httpx

from tests.server.nginx import Nginx
from tests.server.service import Service

PATH = "/api/products"

# Long enough to be compressed.
TEXT = "A lamp that is described at some length. " * 50


class Shop:
    """The service, nginx in front of it, and an account that creates products."""

    def __init__(self, service: Service, proxy: Nginx, token: str, database: Path) -> None:
        self.database = database
        self.service = service
        self.proxy = proxy
        self.token = token

    def client(self, url: str | None = None, *, token: bool = False) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"} if token else {}
        return httpx.AsyncClient(base_url=url or self.proxy.url, headers=headers, timeout=30)

    async def create_product(self, url: str | None = None, **fields: object) -> str:
        """Create a product, by default through nginx, and return its path."""
        async with self.client(url, token=True) as ada:
            created = await ada.post(PATH, json={"name": "Lamp", "price": 0, **fields})
            assert created.status_code == 201, created.text
            return str(created.headers["location"])

    async def asked(self, client: httpx.AsyncClient, path: str, **headers: str) -> bool:
        """Tell whether a read reached the service."""
        request_id = uuid4().hex
        answer = await client.get(path, headers={"X-Request-ID": request_id, **headers})
        assert answer.status_code < 500, answer.text
        return await self.proxy.source_of(request_id) != "HIT"
