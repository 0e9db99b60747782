"""Numbers that all workers of an instance can read: prometheus-client's files, written faster.

The library keeps what a process counts in files that are mapped into its memory, and adds up the
files of all processes when it is asked. Its own writer takes a lock, asks for the process id and
packs bytes for each count, ten times of what it takes to add to a number in memory. Here a process
has one thread that counts, that of the event loop, and a number that its supervisor gave it.
"""

import os
from collections.abc import Sequence
from typing import Any

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from catalog.settings import SharedMetrics

FILE_BYTES = {
    "counter": 64 * 1024,
    "histogram": 256 * 1024,
    "gauge_livesum": 64 * 1024,
    "gauge_livemax": 64 * 1024,
}
"""The files of a process, and what each has from its start; one that is full is doubled."""


def shared_value_class(metrics: SharedMetrics) -> type[Any]:
    """What prometheus-client is to keep its numbers in, in a process that counts with others.

    A process goes on where the one with its number before it has stopped: counters never go
    back, and there are no more files than workers at a time.

    Raises:
        OSError: there is no room for its files.
    """
    files: dict[str, MmapedDict] = {}
    for kind, size in FILE_BYTES.items():
        path = str(metrics.folder / f"{kind}_{metrics.number}.db")
        _reserve(path, size)
        files[kind] = MmapedDict(path)

    class SharedValue:
        """One number in a file; the interface is the library's."""

        _multiprocess = True

        def __init__(
            self,
            typ: str,
            metric_name: str,
            name: str,
            labelnames: Sequence[str],
            labelvalues: Sequence[str],
            help_text: str,
            multiprocess_mode: str = "",
            **_: object,
        ) -> None:
            file = files[f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ]
            key = mmap_key(metric_name, name, list(labelnames), list(labelvalues), help_text)
            self._number = _number_in(file, key)

        def inc(self, amount: float) -> None:
            self._number[0] += amount

        def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002 (the library's)
            self._number[0] = value

        def get(self) -> float:
            return self._number[0]

        def set_exemplar(self, exemplar: object) -> None:
            """There are none in files."""

        def get_exemplar(self) -> None:
            """As above."""

    return SharedValue


def _number_in(file: MmapedDict, key: str) -> "memoryview[float]":
    """The place of a number in a file's memory; it stays good when the file grows."""
    file.read_value(key)  # Makes the place if there is none.
    # The library has no name for either; its file has pairs of a number and a time.
    position: int = file._positions[key]
    return memoryview(file._m)[position : position + 8].cast("d")


def _reserve(path: str, size: int) -> None:
    """Take the room that a file needs now.

    Where a full file system has none for a page of a mapped file, who writes into it is killed.

    Raises:
        OSError: there is no room.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < size:
            os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
