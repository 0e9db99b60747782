"""Behind a real nginx that compresses, and so weakens entity tags."""

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.server.service import Service

INCREMENTS = 100
CLIENTS = 10

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_types application/json application/problem+json;
    gzip_min_length 0;
    gzip_proxied any;
    upstream catalog {{
        server {upstream};
        keepalive 8;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://catalog;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""

pytestmark = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None,
    reason="nginx is not installed: what clients see through it is not tested",
)


@asynccontextmanager
async def nginx(upstream: str) -> AsyncIterator[str]:
    """Run nginx before the service; gives its URL."""
    with tempfile.TemporaryDirectory(prefix="nginx-") as name, socket.socket() as probe:
        # Its workers run as another user, who may not look into pytest's folders.
        folder = Path(name)
        folder.chmod(0o755)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        file = folder / "nginx.conf"
        file.write_text(CONFIGURATION.format(folder=folder, upstream=upstream, port=port))
        process = await asyncio.create_subprocess_exec(
            *("/usr/bin/env", "PATH=/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"),
            *("nginx", "-c", str(file), "-p", str(folder)),
        )
        try:
            await _listening(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()


async def _listening(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(20):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return
    pytest.fail("nginx does not listen")


async def test_increments_are_not_lost(service: Service) -> None:
    token = await service.sign_up()
    headers = {"Authorization": f"Bearer {token}"}
    refused = 0

    async with (
        nginx(service.url.removeprefix("http://")) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as ada,
    ):
        created = await ada.post("/api/products", json={"name": "Lamp", "price": 0})
        path = created.headers["location"]

        async def increment() -> None:
            nonlocal refused
            done = 0
            while done < INCREMENTS // CLIENTS:
                current = await ada.get(path)
                # Compressed, and marked as weak for that.
                assert current.headers["content-encoding"] == "gzip"
                assert current.headers["etag"].startswith('W/"')
                condition = {"If-Match": current.headers["etag"]}
                price = current.json()["price"] + 1
                answer = await ada.patch(path, json={"price": price}, headers=condition)
                if answer.status_code == 200:
                    done += 1
                else:
                    assert answer.status_code == 412, answer.text
                    refused += 1

        await asyncio.gather(*(increment() for _ in range(CLIENTS)))

        read = await ada.get(path)
        for each in (read, await ada.get("/api/products")):
            known = {"If-None-Match": each.headers["etag"]}
            assert (await ada.get(each.url, headers=known)).status_code == 304

    assert (read.json()["price"], read.json()["version"]) == (INCREMENTS, INCREMENTS + 1)
    assert refused > 0
