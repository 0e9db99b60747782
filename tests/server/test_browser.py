"""A page of another origin in a real browser: log in, list, create, follow the event stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, browser, needs_browser
from tests.server.nginx import needs_nginx, nginx
from tests.server.service import Catalog
from tests.support import PASSWORD

pytestmark = [needs_browser, pytest.mark.timeout(300)]

PREFERRED_PORT = 3000
"""Port of the page's origin; another one if it is in use."""

JOURNEY = """<!doctype html>
<meta charset="utf-8">
<script type="module">
const api = new URLSearchParams(location.search).get("api");
const steps = {};
const withBody = (method, body, headers = {}) => ({
  method, headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body),
});
try {
  const login = await fetch(`${api}/api/auth/login`, withBody("POST", ACCOUNT));
  const { access_token } = await login.json();
  const token = { Authorization: `Bearer ${access_token}` };
  steps.login = login.status;

  const wrong = await fetch(`${api}/api/auth/me`, { headers: { Authorization: "Bearer x" } });
  steps.refused = [wrong.status, (await wrong.json()).code];

  const list = await fetch(`${api}/api/products?limit=1`);
  const { products, next } = await list.json();
  const position = list.headers.get("Catalog-Position");
  steps.list = [list.status, products.length, next !== null, list.headers.get("Link") !== null];

  const events = new EventSource(`${api}/api/products/changes?since=${position}`);
  const seen = new Promise((resolve, reject) => {
    events.onmessage = (event) => resolve(JSON.parse(event.data));
    setTimeout(() => reject(new Error("no event")), 60000);
  });
  await new Promise((resolve) => { events.onopen = resolve; });

  const create = await fetch(
    `${api}/api/products`,
    withBody("POST", { name: "From a page", price: 2 }, { ...token, "Idempotency-Key": "one" }),
  );
  const product = await create.json();
  const [path, etag] = [create.headers.get("Location"), create.headers.get("ETag")];
  steps.create = [create.status, path, etag !== null];
  const change = await seen;
  events.close();
  steps.event = [change.id === product.id, change.product.name];

  const again = await fetch(
    `${api}/api/products`,
    withBody("POST", { name: "From a page", price: 2 }, { ...token, "Idempotency-Key": "one" }),
  );
  steps.replayed = again.headers.get("Idempotency-Replayed");
  const changed = await fetch(
    api + path,
    withBody("PATCH", { price: 3 }, { ...token, "If-Match": etag }),
  );
  steps.changed = [changed.status, (await changed.json()).price];
  const deleted = await fetch(api + path, { method: "DELETE", headers: token });
  steps.deleted = deleted.status;
} catch (failure) {
  steps.failure = String(failure);
}
window.steps = steps;
</script>
"""


@asynccontextmanager
async def page_server(account: dict[str, str]) -> AsyncIterator[str]:
    """Serve the page, and yield its origin.

    A server, because a browser that lets its driver answer for one sends no preflights.
    """
    page = JOURNEY.replace("ACCOUNT", json.dumps(account)).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            body = page if head.startswith(b"GET /?") else b""
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n"
                b"Connection: close\r\n\r\n%b" % (len(body), body)
            )
            await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(serve, "127.0.0.1", PREFERRED_PORT)
    except OSError:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://localhost:{server.sockets[0].getsockname()[1]}"


async def journey(opened: Browser, origin: str, api: str) -> Any:
    """Open the page, and return the outcome of each step."""
    page = await opened.window()
    await page.goto(f"{origin}/?api={api}")
    steps = await page.wait_for_function("window.steps")
    return await steps.json_value()


@pytest.mark.parametrize("hop", ["straight", pytest.param("nginx", marks=needs_nginx)])
class TestPageOfAnotherOrigin:
    @pytest.mark.parametrize("is_admitted", [True, False], ids=["admitted", "not-admitted"])
    async def test_only_an_admitted_page_can_use_the_api(
        self, tmp_path: Path, hop: str, *, is_admitted: bool
    ) -> None:
        async with AsyncExitStack() as stack:
            account = {"username": "ada", "password": PASSWORD}
            origin = await stack.enter_async_context(page_server(account))
            variables = {"CATALOG_CORS_ORIGINS": origin if is_admitted else "https://other.example"}
            service = await stack.enter_async_context(Catalog(tmp_path).start(**variables))
            await service.serving()
            token = await service.sign_up()
            connection = await service.connect()
            for number in range(2):
                product = {"name": f"Lamp {number}", "price": 1}
                await connection.ask("POST", "/api/products", token=token, body=product)
            api = service.url
            if hop == "nginx":
                api = (await stack.enter_async_context(nginx(api, variables=variables))).url
            opened = await stack.enter_async_context(browser(origin))

            steps = await journey(opened, origin, api)

            await opened.forgive(f"asks another host: {api}")
            await opened.forgive("401" if is_admitted else "blocked by CORS policy")
            if not is_admitted:
                await opened.forgive("ERR_FAILED")
        if is_admitted:
            assert steps == {
                "login": 200,
                "refused": [401, "token-invalid"],
                "list": [200, 1, True, True],
                "create": [201, "/api/products/3", True],
                "event": [True, "From a page"],
                "replayed": "true",
                "changed": [200, 3],
                "deleted": 200,
            }
        else:
            assert steps == {"failure": "TypeError: Failed to fetch"}
