"""A client of every operation that records which writes the service has acknowledged."""

import json
import random
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from tests.server.service import Answer, Connection, Service
from tests.support import PASSWORD

PRODUCTS = "/api/products"
NDJSON = "Content-Type: application/x-ndjson"


class Client:
    """A client that records acknowledged writes.

    Attributes:
        statuses: the number of each status by operation.
        created: names of products whose creation was acknowledged.
        unknown: names of products whose creation is uncertain.
        failures: bodies of unacceptable responses.
        token: the account's access token.
    """

    def __init__(self, service: Service, token: str, refresh_token: str) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.created: list[str] = []
        self.unknown: set[str] = set()
        self.failures: list[tuple[str, bytes]] = []
        self._service = service
        self.token = token
        self._refresh_token = refresh_token
        self._idle: list[Connection] = []

    async def ask(
        self, operation: str, method: str, path: str, *fields: str, **options: object
    ) -> Answer:
        connection = self._idle.pop() if self._idle else await self._service.connect()
        token = options.pop("token", self.token)
        answer = await connection.ask(method, path, *fields, token=token, **options)  # type: ignore[arg-type]
        if answer.headers.get("transfer-encoding") == "chunked" or answer.closes:
            await connection.close()
        else:
            self._idle.append(connection)
        self.statuses[operation, answer.status] += 1
        if answer.status >= 500 and (answer.status != 503 or "retry-after" not in answer.headers):
            self.failures.append((operation, answer.body))
        return answer

    def _note(self, name: str, answer: Answer) -> None:
        if answer.status == 201:
            self.created.append(name)
        else:
            self.unknown.add(name)

    async def list_products(self) -> None:
        limit = random.randint(1, 100)  # noqa: S311 (not a secret)
        await self.ask("list", "GET", f"{PRODUCTS}?limit={limit}", token="")

    async def list_first(self) -> None:
        await self.ask("first page", "GET", PRODUCTS, token="")

    async def list_own(self) -> None:
        await self.ask("my", "GET", f"{PRODUCTS}/my?limit={random.randint(1, 100)}")  # noqa: S311

    async def read_one(self) -> None:
        await self.ask("one", "GET", f"{PRODUCTS}/1", token="")

    async def search(self) -> None:
        await self.ask("search", "GET", f"{PRODUCTS}?q=lamp&fields=id,name", token="")

    async def count(self) -> None:
        await self.ask("total", "GET", f"{PRODUCTS}?total=true&limit=1", token="")

    async def read_changes(self) -> None:
        await self.ask("changes", "GET", f"{PRODUCTS}/changes?since=0&limit=5", token="")

    async def create(self) -> None:
        name = f"lamp {secrets.token_hex(8)}"
        body = {"name": name, "price": 1}
        self._note(name, await self.ask("create", "POST", PRODUCTS, body=body))

    async def create_keyed(self) -> None:
        name = f"keyed {secrets.token_hex(8)}"
        body, key = {"name": name, "price": 1}, f"Idempotency-Key: {name}"
        answer = await self.ask("keyed create", "POST", PRODUCTS, key, body=body)
        for _ in range(3):
            if answer.status == 201:
                break
            answer = await self.ask("keyed create", "POST", PRODUCTS, key, body=body)
        self._note(name, answer)

    async def change(self) -> None:
        body = {"price": random.randint(1, 1000)}  # noqa: S311 (not a secret)
        await self.ask("patch", "PATCH", f"{PRODUCTS}/1", body=body)

    async def delete(self) -> None:
        name = f"rug {secrets.token_hex(8)}"
        answer = await self.ask("create", "POST", PRODUCTS, body={"name": name, "price": 1})
        if answer.status == 201:
            product_id = json.loads(answer.body)["id"]
            await self.ask("delete", "DELETE", f"{PRODUCTS}/{product_id}")
        self.unknown.add(name)

    async def log_in(self) -> None:
        body = {"username": "ada", "password": PASSWORD}
        await self.ask("login", "POST", "/api/auth/login", body=body, token="")

    async def refresh(self) -> None:
        await self.ask("refresh", "POST", "/api/auth/refresh", token=self._refresh_token)

    async def import_products(self) -> None:
        names = [f"bulk {secrets.token_hex(8)}" for _ in range(3)]
        body = b"".join(json.dumps({"name": n, "price": 1}).encode() + b"\n" for n in names)
        connection = await self._service.connect()
        fields = (
            *(f"POST {PRODUCTS} HTTP/1.1", "Host: catalog", f"Authorization: Bearer {self.token}"),
            *(NDJSON, f"Content-Length: {len(body)}", "", ""),
        )
        await connection.send("\r\n".join(fields).encode() + body)
        answer = await connection.answer()
        await connection.close()
        self.statuses["import", answer.status] += 1
        if answer.status not in {200, 503}:
            self.failures.append(("import", answer.body))
        if answer.status == 200 and json.loads(answer.body)["created"] == len(names):
            self.created.extend(names)
        else:
            self.unknown.update(names)

    async def export(self) -> None:
        await self.ask("export", "GET", f"{PRODUCTS}?format=csv", "Connection: close", token="")

    @property
    def operations(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        return [
            *(self.list_products, self.list_first, self.list_own, self.read_one, self.search),
            *(self.count, self.read_changes, self.create, self.create_keyed, self.change),
            *(self.delete, self.log_in, self.refresh, self.import_products, self.export),
        ]
