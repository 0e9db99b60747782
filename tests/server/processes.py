"""Facts about processes, from /proc."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

GONE = (FileNotFoundError, ProcessLookupError)


def is_running(pid: int) -> bool:
    """Tell whether the process exists and is not a zombie."""
    try:
        return _stat(pid)[0] not in {"Z", "X"}
    except GONE:
        return False


def of_session(session: int) -> list[int]:
    """Return the running processes of a session."""
    found = []
    for pid in _all():
        with suppress(*GONE):
            if _stat(pid)[3] == str(session) and is_running(pid):
                found.append(pid)
    return found


def children_of(parent: int) -> list[int]:
    """Return the running children of a process."""
    found = []
    for pid in _all():
        with suppress(*GONE):
            if _stat(pid)[1] == str(parent) and is_running(pid):
                found.append(pid)
    return found


def holders_of(file: str, among: Iterable[int] | None = None) -> list[int]:
    """Return the other processes that have a file open.

    Args:
        file: its path or, as for a pipe, the target of its descriptor's link.
        among: the processes to look at; by default all, which takes long.
    """
    found = []
    for pid in _all() if among is None else among:
        with suppress(*GONE, PermissionError):
            links = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
            if file in links and pid != os.getpid():
                found.append(pid)
    return found


def describe(pid: int) -> str:
    """Describe a process in a line: its threads' states and wait channels, and its command."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
        threads = []
        for thread in Path(f"/proc/{pid}/task").iterdir():
            state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
            threads.append(f"{state} {(thread / 'wchan').read_text()}")
        return f"{pid} [{', '.join(threads)}] {command}"
    except (*GONE, PermissionError):
        return f"{pid} (gone)"


def _all() -> Iterator[int]:
    return (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal())


def _stat(pid: int) -> list[str]:
    """Return the fields from the state on: state, parent, group, session and more."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
