"""What one turn of one contestant has come to, and what it has cost."""

import asyncio
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.load.contestants import Contestant


@dataclass(frozen=True)
class Measured:
    """One turn of one contestant.

    Attributes:
        requests: answered, whatever the status.
        seconds: how long it took.
        cpu_us: microseconds of CPU a request, of the contestant's processes.
        machine_us: the same of the whole machine without the clients, so with the database.
        p50: milliseconds, of all answers.
        p99: the same.
        accepted_p99: milliseconds, of the answers that are no refusals; an upper bound.
        refused: answers with a status of 400 or more.
        failed: connections that were refused or broke, and answers that came too late.
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
        """Answers a second that are no refusals."""
        return (self.requests - self.refused) / self.seconds


class Traffic(Protocol):
    """Clients that ask for something."""

    @property
    def path(self) -> str:
        """What they ask for: a URL's path and query."""

    async def put_on(
        self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
    ) -> Measured:
        """Have them ask for a while; files go into the folder.

        Raises:
            click.ClickException: they did not end well.
        """


class Meter:
    """Counts the CPU time of a turn from when it is made."""

    def __init__(self, contestant: Contestant) -> None:
        self._contestant = contestant
        self._before = self._used()

    def a_request(self, requests: int) -> tuple[float, float]:
        """Microseconds of CPU a request, of the contestant, and of the machine but the clients.

        The clients are those processes that were started here and have ended since.
        """
        own, machine = (
            (now - before) / requests * 1e6
            for now, before in zip(self._used(), self._before, strict=True)
        )
        return own, machine

    def _used(self) -> tuple[float, float]:
        return self._contestant.cpu_seconds(), _of_machine() - _of_children()


async def busy() -> float:
    """The share of this machine's cores that others use."""
    before = _of_machine()
    await asyncio.sleep(1)
    return (_of_machine() - before) / (os.cpu_count() or 1)


def _of_children() -> float:
    """CPU seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _of_machine() -> float:
    """CPU seconds that the whole machine has worked."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _wait, irq, softirq = map(int, line.split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
