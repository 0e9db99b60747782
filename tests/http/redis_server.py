"""A Redis of the tests' own, on a loopback port, to be killed and stopped at will."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.engines import tied_to_us

START_PATIENCE_SECONDS = 30.0


class RedisMissing(Exception):
    """There is none here; the message says how to get it."""


class RedisServer:
    """A Redis server, or none for the moment, always at the same address.

    Attributes:
        url: where it is.
        version: its name and version; known when it has run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.version = ""

    async def start(self, *options: str) -> None:
        """Run it, with nothing in it.

        Raises:
            RedisMissing: it is not installed.
        """
        # Under this name, since the program does something else under its other one.
        program = self._folder / "redis-server"
        if not program.exists():
            program.symlink_to(_program())
        arguments = ["--bind", "127.0.0.1", "--port", str(self._port), "--save", "", *options]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*tied_to_us(), program, *arguments],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for pytest, which then stops the server.
            )
        async with asyncio.timeout(START_PATIENCE_SECONDS):
            while not await self._listens():
                assert self._process.poll() is None, (self._folder / "redis.log").read_text()
                await asyncio.sleep(0.02)
        self.version = self.version or f"Redis {(await self.ask('INFO'))['redis_version']}"

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    def kill(self) -> None:
        """End it at once, as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def hang(self) -> None:
        """Let it answer nothing, while its connections stay open and new ones are accepted."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End what ``hang`` began."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ask(self, *command: str | int) -> Any:
        """Send it a command of Redis."""
        async with Redis.from_url(self.url, decode_responses=True) as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]  # it is

    def stop(self) -> None:
        """End it if it runs; a process that hangs can be killed too."""
        if self._process is not None:
            self.kill()


def _program() -> str:
    """Where the server is."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    # Debian's redis-tools has the server under its other name, without starting any.
    for name in ("redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb"):
        if program := shutil.which(name, path=path):
            return program
    raise RedisMissing(
        "There is no redis-server. Get it by: apt-get install redis-tools"
        " (./build.sh test does, where it may)"
    )


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[RedisServer]:
    """Run a server for as long as the block lasts.

    Raises:
        RedisMissing: it is not installed.
    """
    server = RedisServer(folder)
    await server.start()
    try:
        yield server
    finally:
        server.stop()
