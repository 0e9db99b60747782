"""A page of another origin in a real browser: log in, list, create, follow the event stream."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REQUIRED
from tests.engines import tied_to_us
from tests.server.nginx import NGINX, nginx
from tests.server.service import Catalog
from tests.support import PASSWORD

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

PREFERRED_PORT = 3000
"""Port of the page's origin; another one if it is in use."""

BROWSER_SECONDS = 180.0
"""Time-out of a browser's start and its journey, on a busy machine."""

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
await fetch("/done", { method: "POST", body: JSON.stringify(steps) });
</script>
"""


class Page:
    """Web server of the page, which reports the outcome of its journey.

    Attributes:
        origin: the page's origin.
    """

    def __init__(self, account: dict[str, str]) -> None:
        self.origin = ""
        self._html = JOURNEY.replace("ACCOUNT", json.dumps(account)).encode()
        self._steps: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Page"]:
        try:
            server = await asyncio.start_server(self._serve, "127.0.0.1", PREFERRED_PORT)
        except OSError:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.origin = f"http://localhost:{server.sockets[0].getsockname()[1]}"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if head.startswith("post /done"):
                length = int(head.partition("content-length:")[2].split("\r\n")[0])
                self._steps.put_nowait(json.loads(await reader.readexactly(length)))
            body = self._html if head.startswith("get /?") else b""
            kind = "text/html" if body else "text/plain"
            lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
            writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
            await writer.drain()
        writer.close()

    async def journey(self, folder: Path, api: str) -> dict[str, Any]:
        """Open the page in a browser, and return the outcome of each step."""
        assert CHROMIUM is not None
        browser = await asyncio.create_subprocess_exec(
            *tied_to_us(),
            CHROMIUM,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", f"--user-data-dir={folder}/profile", "--remote-debugging-port=0"),
            f"{self.origin}/?api={api}",
            start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(BROWSER_SECONDS):
                return await self._steps.get()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)
            await browser.wait()


@pytest.fixture
def browser() -> str:
    """Return the path of Chromium; its absence fails the test in CI."""
    if CHROMIUM is None:
        reason = "Chromium is not there: pages of other origins are not tested in a browser"
        if REQUIRED:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return CHROMIUM


@pytest.mark.usefixtures("browser")
class TestPageOfAnotherOrigin:
    @pytest.mark.parametrize("hop", ["service", "nginx"])
    @pytest.mark.parametrize("admitted", [True, False], ids=["admitted", "not-admitted"])
    async def test_admitted_page_uses_the_api(
        self, tmp_path: Path, hop: str, *, admitted: bool
    ) -> None:
        if hop == "nginx" and NGINX is None:
            pytest.skip("nginx is not there")
        account = {"username": "ada", "password": PASSWORD}
        async with AsyncExitStack() as stack:
            page = await stack.enter_async_context(Page(account).run())
            origins = page.origin if admitted else "https://app.example.com"
            variables = {"CATALOG_CORS_ORIGINS": origins}
            service = await stack.enter_async_context(Catalog(tmp_path).start(**variables))
            await service.serving()
            token = await service.sign_up()
            connection = await service.connect()
            for number in range(2):
                product = {"name": f"Lamp {number}", "price": 1}
                await connection.ask("POST", "/api/products", token=token, body=product)
            url = service.url
            if hop == "nginx":
                url = (await stack.enter_async_context(nginx(url, variables=variables))).url

            steps = await page.journey(tmp_path, url)

        if not admitted:
            assert steps == {"failure": "TypeError: Failed to fetch"}
            return
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
