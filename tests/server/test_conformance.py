"""The running service against its own OpenAPI document, by property-based testing (schemathesis).

Requests that the document allows and such as it forbids; every answer must be one that it
announces. ``CATALOG_TEST_EXAMPLES`` says how many requests an operation gets.
"""

import asyncio
import os
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.service import Catalog

EXAMPLES = os.environ.get("CATALOG_TEST_EXAMPLES", "10")
CONFIG = Path(__file__).parent.parent / "schemathesis.toml"


async def sign_in(url: str, password: str) -> dict[str, str]:
    async with httpx.AsyncClient(base_url=url) as client:
        credentials = {"username": "admin", "password": password}
        answer = await client.post("/api/auth/login", json=credentials)
    tokens: dict[str, str] = answer.json()
    return tokens


async def put_to_the_test(folder: Path, url: str, token: str, *options: str) -> tuple[int, str]:
    """Run schemathesis, and return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"),
        *("--config-file", CONFIG, "--no-color", "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {token}", "--max-examples", EXAMPLES),
        *("--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"),
        *options,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.timeout(600)
async def test_every_answer_is_one_that_the_document_announces(
    catalog: Catalog, tmp_path: Path
) -> None:
    async with catalog.start("--workers=2", CATALOG_PASSWORD_QUEUE="1000") as service:
        url = (await service.serving()).url
        tokens = await sign_in(url, catalog.environment["ADMIN_PASSWORD"])
        only_refresh = ("--include-path", "/api/auth/refresh")
        without_refresh = ("--exclude-path", "/api/auth/refresh")

        for token, options in (("access", without_refresh), ("refresh", only_refresh)):
            code, output = await put_to_the_test(tmp_path, url, tokens[f"{token}_token"], *options)
            assert code == 0, output

        assert not service.logged("request_failed"), "the log has the tracebacks"
