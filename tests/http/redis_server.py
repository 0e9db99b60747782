"""A Redis server of the tests' own on a loopback port, which they may kill and suspend."""

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

START_TIMEOUT_SECONDS = 30.0


class RedisMissing(Exception):
    """Redis is not installed; the message says how to install it."""


class RedisServer:
    """A Redis server that may be started and killed, always at the same address.

    Attributes:
        url: its address.
        version: its name and version; empty before its first start.
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
        """Start it, empty.

        Raises:
            RedisMissing: Redis is not installed.
        """
        # Run it under this name: redis-check-rdb is the same program, selected by name.
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
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
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
        """Kill it, as in a crash."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def hang(self) -> None:
        """Suspend it: connections stay open and new ones are accepted, without any reply."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Resume it after ``hang``."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ask(self, *command: str | int) -> Any:
        """Run a Redis command and return the reply."""
        async with Redis.from_url(self.url, decode_responses=True) as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py

    def stop(self) -> None:
        """Kill it if it runs, even while suspended."""
        if self._process is not None:
            self.kill()


def _program() -> str:
    """Return the path of the server program.

    Raises:
        RedisMissing: Redis is not installed.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    # Debian's redis-tools has the server as redis-check-rdb, and starts no service.
    for name in ("redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb"):
        if program := shutil.which(name, path=path):
            return program
    raise RedisMissing(
        "There is no redis-server. Get it by: apt-get install redis-tools"
        " (./build.sh test does, where it may)"
    )


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[RedisServer]:
    """Run a server for the duration of the block.

    Raises:
        RedisMissing: Redis is not installed.
    """
    server = RedisServer(folder)
    await server.start()
    try:
        yield server
    finally:
        server.stop()
