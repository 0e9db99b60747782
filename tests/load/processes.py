"""CPU time and memory of processes and their descendants, from /proc."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.server.processes import GONE

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its descendants so far."""
    ticks = 0
    for each in with_descendants(pid):
        # The process may exit while it is read.
        with suppress(*GONE):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_SECOND


def with_descendants(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    children: list[str] = []
    with suppress(*GONE):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += (task / "children").read_text().split()
    for child in children:
        yield from with_descendants(int(child))


def resident_bytes(pid: int) -> int:
    """Return the resident size of a process; 0 if it is gone."""
    with suppress(*GONE):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def proportional_bytes(pids: Sequence[int]) -> int:
    """Return the memory of processes and their descendants; shared pages count once."""
    total = 0
    for pid in pids:
        for each in with_descendants(pid):
            with suppress(*GONE):
                lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024
