"""Metric values shared by all workers of an instance: prometheus-client's files, written faster.

The library keeps a process's values in memory-mapped files, and sums the files of all processes on
a scrape. For each count its own writer takes a lock, looks up the process id and packs bytes, which
costs ten times an addition in memory. Here only the event loop's thread counts, and the supervisor
assigns each process a number.

No other module uses private attributes of prometheus-client. They are those of version 0.26;
tests/test_private_attributes.py fails when another is installed.
"""

import os
from collections.abc import Sequence
from typing import Any, Protocol

from prometheus_client import Counter, Histogram
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from catalog.settings import SharedMetrics

FILE_BYTES = {
    "counter": 64 * 1024,
    "histogram": 256 * 1024,
    "gauge_livesum": 64 * 1024,
    "gauge_livemax": 64 * 1024,
}
"""Initial sizes of a process's files; a full file is doubled."""


class Value(Protocol):
    """Value of a series, as prometheus-client keeps it: shared between processes or not."""

    def inc(self, amount: float) -> None:
        """Add an amount."""


def value_of(counter: Counter) -> Value:
    """Return the value of a counter's series, which costs less to increment than the counter."""
    value: Value = counter._value
    return value


def values_of(histogram: Histogram) -> tuple[Value, Sequence[Value], Sequence[float]]:
    """Return the values of a histogram's series.

    Returns:
        the sum of the observations; the number of observations in each bucket alone, not
        cumulative; and the buckets' upper bounds.
    """
    return histogram._sum, histogram._buckets, histogram._upper_bounds


def shared_value_class(metrics: SharedMetrics) -> type[Any]:
    """Create the value class with which prometheus-client counts in shared files.

    A process continues the files of its predecessor with the same number: counters never decrease,
    and there are no more files than concurrent workers need.

    Raises:
        OSError: there is no room for the files.
    """
    files: dict[str, MmapedDict] = {}
    for kind, size in FILE_BYTES.items():
        path = str(metrics.folder / f"{kind}_{metrics.number}.db")
        _reserve(path, size)
        files[kind] = MmapedDict(path)

    class SharedValue:
        """Number in a file, with the library's interface."""

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
            """Ignore exemplars, which files cannot hold."""

        def get_exemplar(self) -> None:
            """Return no exemplar."""

    return SharedValue


def _number_in(file: MmapedDict, key: str) -> "memoryview[float]":
    """Return a view of a number in a file's memory; it stays valid when the file grows."""
    file.read_value(key)  # Creates the entry if it is missing.
    # The file holds pairs of a number and a time.
    position: int = file._positions[key]
    return memoryview(file._m)[position : position + 8].cast("d")


def _reserve(path: str, size: int) -> None:
    """Allocate a file's space in advance.

    On a full file system a write to an unallocated page of a mapped file kills the process.

    Raises:
        OSError: there is no room.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < size:
            os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
