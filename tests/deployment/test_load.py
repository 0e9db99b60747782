"""The load generator: its requests, its report and its clean-up."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deployment.compose import ROOT
from tests.server.service import Catalog, Connection, Service


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """Run the service as a process."""
    async with Catalog(tmp_path).start() as service:
        yield await service.serving()


async def run(*arguments: str) -> tuple[int, str]:
    """Run the load generator; return its exit status and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "docker/load/load.py"), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


class TestLoad:
    async def test_load_prints_a_report_and_deletes_its_account_and_products(
        self, service: Service
    ) -> None:
        code, said = await run(
            "--url", service.url, "--seconds", "1", "--connections", "4", "--write"
        )

        assert code == 0, said
        heading, titles, reads, writes, answers = said.splitlines()
        assert heading == f"{service.url}, 4 connections, 1 s"
        assert titles.split()[0] == "requests"
        assert (reads.split()[0], writes.split()[0]) == ("GET", "POST")
        assert answers.startswith("answers  200: ")
        connection = await Connection.open(service.url)
        listed = await connection.get("/api/products")
        await connection.close()
        assert listed.body == b'{"products":[],"next":null,"next_cursor":null}'

    @pytest.mark.parametrize(
        "arguments", [("--seconds", "301"), ("--seconds", "0"), ("--connections", "513")]
    )
    async def test_load_beyond_the_limits_is_refused(self, arguments: tuple[str, str]) -> None:
        code, said = await run("--url", "http://127.0.0.1:1", *arguments)

        assert code == 2
        assert "at most 300 seconds and 512 connections" in said

    async def test_unreachable_service_is_a_failure(self) -> None:
        code, said = await run("--url", "http://127.0.0.1:1", "--seconds", "0.3", "--connections=1")

        assert code == 1
        assert "ConnectionRefusedError: " in said
        assert "Traceback" not in said
