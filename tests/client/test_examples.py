"""The programs of the documentation of the client, run against a service."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from catalog.client import AsyncClient, Product
from tests.client.conftest import name
from tests.code_blocks import blocks_of
from tests.server.service import Catalog, Service
from tests.support import PASSWORD

KILLS = 4


def examples() -> list[str]:
    """Return the programs in docs/client.md."""
    return blocks_of(Path(__file__).parents[2] / "docs" / "client.md", "python")


class TestExamples:
    async def test_examples_run(self, tmp_path: Path) -> None:
        programs = examples()
        async with Catalog(tmp_path).start() as service:
            url = (await service.serving()).url
            for number, program in enumerate(programs):
                file = tmp_path / f"example{number}.py"
                file.write_text(program.replace("http://127.0.0.1:8000", url))
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    file,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                output, _ = await process.communicate()
                assert process.returncode == 0, f"{program}\n{output.decode()}"

        assert len(programs) == 6

    def test_mirror_has_fewer_than_15_lines(self) -> None:
        (mirror,) = [program for program in examples() if "def keep_mirror" in program]
        body = mirror[mirror.index("async def") :]

        assert len([line for line in body.splitlines() if line.strip()]) < 15


class TestMirror:
    async def test_mirror_stays_equal_while_workers_are_killed(self, catalog: Catalog) -> None:
        async with catalog.start("--workers=2") as service:
            await service.serving()
            username = name()
            async with AsyncClient(service.url) as client:
                await client.sign_up(username, f"{username}@example.com", PASSWORD)
                await mirrored(service, client)


def documented(function: str) -> Any:
    """Return a function as docs/client.md defines it."""
    (program,) = [each for each in examples() if f"def {function}" in each]
    names: dict[str, Any] = {}
    exec(program, names)  # noqa: S102 (our own documentation)
    return names[function]


async def mirrored(service: Service, client: AsyncClient) -> None:
    """Write and kill while a mirror follows; check that it is equal in the end."""
    mirror: dict[int, Product] = {}
    follower = AsyncClient(service.url)
    keep_mirror = documented("keep_mirror")
    following = asyncio.create_task(keep_mirror(follower, mirror))
    written: list[Product] = []

    async def write(number: int) -> None:
        for round_ in range(30):
            product = await client.create(f"Lamp {number} {round_}", round_)
            if round_ % 3 == 1:
                product = await client.update(product, {"price": product.price + 1})
            if round_ % 5 == 4:
                await client.delete(product)
            else:
                written.append(product)

    writing = asyncio.gather(*(write(number) for number in range(4)))
    killed = 0
    async with asyncio.timeout(90):
        while not writing.done():
            victim = min(service.workers, default=0)
            if victim and killed < KILLS and len(service.logged("worker_ready")) > killed:
                os.kill(victim, signal.SIGKILL)
                killed += 1
            await asyncio.wait([writing], timeout=0.5)
        await writing
        wanted = {product.id: product async for product in client.products()}
        while mirror != wanted:
            assert not following.done(), following.exception()
            await asyncio.sleep(0.05)
    following.cancel()
    await asyncio.wait([following])
    await follower.aclose()
    assert killed == KILLS
    assert {product.id for product in written} <= set(wanted)
