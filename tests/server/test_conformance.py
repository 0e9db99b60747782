"""The running service against its own OpenAPI document, by property-based testing (schemathesis).

Requests that the document allows and such as it forbids; every answer must be one that it
announces. ``CATALOG_TEST_EXAMPLES`` says how many requests an operation gets.
"""

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest

from tests.server.service import Catalog

EXAMPLES = os.environ.get("CATALOG_TEST_EXAMPLES", "10")
CONFIG = Path(__file__).parent.parent / "schemathesis.toml"
ROOT = Path(__file__).parent.parent.parent

REFRESHES = "/api/auth/refresh"

# What may end the session that it is called with, and then all others are told so and no more:
# each request of these comes with a token of its own (tests/server/fresh_tokens.py).
ENDING = (
    *("log_out", "log_out_everywhere", "end_session", "change_password", "delete_account"),
    *("change_user", "end_user_sessions"),
)


def options_for(flag: str, values: Iterable[str]) -> list[str]:
    return [each for value in values for each in (flag, value)]


async def sign_in(url: str, password: str) -> dict[str, str]:
    async with httpx.AsyncClient(base_url=url) as client:
        credentials = {"username": "admin", "password": password}
        answer = await client.post("/api/auth/login", json=credentials)
    tokens: dict[str, str] = answer.json()
    return tokens


async def put_to_the_test(
    folder: Path, url: str, *options: str, **environment: str
) -> tuple[int, str]:
    """Run schemathesis, and return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"),
        *("--config-file", CONFIG, "--no-color", "run", f"{url}/openapi.json"),
        *("--max-examples", EXAMPLES),
        *("--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"),
        *options,
        cwd=folder,
        env={**os.environ, **environment},
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

        def bearing(kind: str) -> tuple[str, str]:
            return "--header", f"Authorization: Bearer {tokens[kind]}"

        ending = options_for("--exclude-operation-id", ENDING)
        runs = (
            (*bearing("access_token"), "--exclude-path", REFRESHES, *ending),
            (*bearing("refresh_token"), "--include-path", REFRESHES),
            tuple(options_for("--include-operation-id", ENDING)),
        )
        fresh_tokens = {
            "SCHEMATHESIS_HOOKS": "tests.server.fresh_tokens",
            "PYTHONPATH": str(ROOT),
            "CATALOG_TEST_URL": url,
            "CATALOG_TEST_PASSWORD": catalog.environment["ADMIN_PASSWORD"],
        }
        for number, options in enumerate(runs):
            environment = fresh_tokens if number == 2 else {}
            code, output = await put_to_the_test(tmp_path, url, *options, **environment)
            assert code == 0, output

        assert not service.logged("request_failed"), "the log has the tracebacks"
