"""Result of one turn of one contestant, and its cost."""

import asyncio
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.load.contestants import Contestant


@dataclass(frozen=True)
class Measured:
    """Result of one turn of one contestant.

    Attributes:
        requests: answered ones, whatever the status.
        seconds: duration of the turn.
        cpu_us: microseconds of CPU per request, of the contestant's processes.
        machine_us: the same for the whole machine without the clients, so with the database.
        p50: milliseconds, over all answers.
        p99: the same.
        accepted_p99: milliseconds, over answers with a status below 400; an upper bound.
        refused: answers with a status of 400 or more.
        failed: connections that were refused or broke, and answers after the time-out.
    """

    requests: int
    seconds: float
    cpu_us: float
    machine_us: float
    p50: float
    p99: float
    accepted_p99: float
    refused: int
    failed: int

    @property
    def rate(self) -> float:
        """Answers with a status below 400 per second."""
        return (self.requests - self.refused) / self.seconds


class Traffic(Protocol):
    """A load generator."""

    @property
    def path(self) -> str:
        """The requested URL's path and query."""

    async def put_on(
        self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
    ) -> Measured:
        """Generate load for some seconds; files go into the folder.

        Raises:
            click.ClickException: a client failed.
        """


class Meter:
    """Meter of the CPU time of a turn, started by its construction."""

    def __init__(self, contestant: Contestant) -> None:
        self._contestant = contestant
        self._before = self._used()

    def a_request(self, requests: int) -> tuple[float, float]:
        """Return CPU microseconds per request, of the contestant, and of all but the clients.

        Clients are the child processes of this one that have ended since.
        """
        own, machine = (
            (now - before) / requests * 1e6
            for now, before in zip(self._used(), self._before, strict=True)
        )
        return own, machine

    def _used(self) -> tuple[float, float]:
        return self._contestant.cpu_seconds(), _of_machine() - _of_children()


async def busy() -> float:
    """Return the share of this machine's cores that is in use."""
    before = _of_machine()
    await asyncio.sleep(1)
    return (_of_machine() - before) / (os.cpu_count() or 1)


def _of_children() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _of_machine() -> float:
    """Return the CPU seconds of the whole machine."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _wait, irq, softirq = map(int, line.split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
