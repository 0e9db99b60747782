"""The supervisor's end of one worker process."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from socket import socket
from typing import Self

from catalog.settings import SharedMetrics, environment_of_worker


class WorkerProcess:
    """A worker from its start to its exit.

    Attributes:
        slot: which listening socket it serves.
        metrics: where it counts.
        ready: whether it has come to accept connections; stays true.
        proven: whether it then lived long enough to say that the code and the settings are good.
        leaving: whether its exit is expected.
        failure: why it cannot serve, in its own words; empty when it did not say.
        came_up: resolves when it is ready (true) or is gone without having been (false).
    """

    def __init__(
        self,
        slot: int,
        process: asyncio.subprocess.Process,
        status: int,
        lifeline: int,
        metrics: SharedMetrics | None,
    ) -> None:
        self.slot = slot
        self.metrics = metrics
        self.ready = self.proven = self.leaving = False
        self.failure = ""
        self.came_up: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._process = process
        self._status = status
        self._lifeline = lifeline

    @classmethod
    async def start(
        cls,
        slot: int,
        listener: socket,
        *,
        workers: int,
        prepare: bool,
        metrics: SharedMetrics | None,
    ) -> Self:
        """Start a fresh interpreter, so that a reload runs the code that is there now.

        Raises:
            OSError: the system has no room for another process.
        """
        status, status_of_worker = os.pipe()
        lifeline_of_worker, lifeline = os.pipe()
        fds = (listener.fileno(), status_of_worker, lifeline_of_worker)
        command = [sys.executable, "-m", "catalog.server.start"]
        for option, fd in zip(("listener", "status", "lifeline"), fds, strict=True):
            command.append(f"--{option}-fd={fd}")
        # It reads the settings anew, but not the options of the command line.
        command.append(f"--workers={workers}")
        if prepare:
            command.append("--prepare")
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=fds,
                env=environment_of_worker(metrics),
                # Ctrl-C in a terminal reaches the whole group; what follows is up to us.
                process_group=0,
            )
        except OSError:
            os.close(status)
            os.close(lifeline)
            raise
        finally:
            os.close(status_of_worker)
            os.close(lifeline_of_worker)
        return cls(slot, process, status, lifeline, metrics)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def words(self) -> AsyncIterator[str]:
        """What it says, until it has nothing more to say because it is gone."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._status, "rb", 0)
        )
        try:
            async for line in reader:
                # Killed while it wrote, it may leave half a line.
                with suppress(ValueError):
                    yield json.loads(line)
        finally:
            transport.close()

    async def exit_code(self) -> int:
        """Wait for the exit; a negative code is the signal that killed it."""
        code = await self._process.wait()
        self._close_lifeline()
        if not self.came_up.done():
            self.came_up.set_result(False)
        return code

    def terminate(self) -> None:
        """Ask it to drain and stop, the public way: unready first, then gone."""
        self._signal(signal.SIGTERM)

    def release(self) -> None:
        """Close its lifeline: it stops accepting now and exits when it is done. Idempotent."""
        self.leaving = True
        self._close_lifeline()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        self.leaving = True
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _close_lifeline(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
