"""Supervisor's handle of a worker process."""

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
    """Worker process from its start to its exit.

    Attributes:
        slot: index of the listening socket that it serves.
        metrics: location of its metrics.
        ready: whether it has begun to accept connections; stays true.
        proven: whether it then lived long enough to prove that the code and the settings are good.
        leaving: whether its exit is expected.
        failure: reason why it cannot serve, as it reported it; empty if it reported none.
        came_up: resolves to true when it is ready, or to false when it exits before that.
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
        """Start a fresh interpreter, so that a reload runs the current code.

        Raises:
            OSError: the system cannot start another process.
        """
        status, status_of_worker = os.pipe()
        lifeline_of_worker, lifeline = os.pipe()
        fds = (listener.fileno(), status_of_worker, lifeline_of_worker)
        # -P: a module in the working folder must not replace one of the service or its libraries.
        command = [sys.executable, "-P", "-m", "catalog.server.start"]
        for option, fd in zip(("listener", "status", "lifeline"), fds, strict=True):
            command.append(f"--{option}-fd={fd}")
        # The worker reads the settings again, but not the command-line options.
        command.append(f"--workers={workers}")
        if prepare:
            command.append("--prepare")
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=fds,
                env=environment_of_worker(metrics),
                # Ctrl-C in a terminal signals the whole group; the supervisor decides what follows.
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
        """Yield the worker's status messages until it exits."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._status, "rb", 0)
        )
        try:
            async for line in reader:
                # A worker killed while writing may leave an incomplete line.
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
        """Send SIGTERM: the worker becomes unready, drains and stops."""
        self._signal(signal.SIGTERM)

    def release(self) -> None:
        """Close the lifeline: the worker stops accepting now and exits when done. Idempotent."""
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
