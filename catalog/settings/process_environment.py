"""Variables of the service's environment that are no settings."""

import os
import re
from pathlib import Path
from typing import NamedTuple

COMMIT_VARIABLE = "CATALOG_COMMIT"
WORKER_NUMBER_VARIABLE = "CATALOG_WORKER_NUMBER"

STACK_VARIABLES = frozenset(
    f"CATALOG_{name}"
    for name in (
        *("APP_MEMORY", "CONFIGS", "GRAFANA_BIND", "HTTPS_BIND", "HTTP_BIND", "IMAGE"),
        *("INSTANCES", "MYSQL_BUFFER_POOL", "MYSQL_MEMORY", "OPEN_FILES", "PROMETHEUS_BIND"),
        *("PROXY_NETWORK", "REVISION", "SOURCE", "STOP_GRACE_PERIOD", "TLS", "UP_TIMEOUT"),
        "VERSION",
    )
)
"""Variables of the stacks of containers, which share the service's .env."""

# prometheus-client and its tools read this one.
_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

# Of the C library, which reads it when a process starts; other C libraries ignore it.
_ALLOCATOR_VARIABLE = "GLIBC_TUNABLES"
_ALLOCATOR = ":".join(
    (
        # By default a freed block raises the threshold to its size, and blocks below it stay with
        # the process: the memory of a password's hash, 19 MiB at least, would never be returned.
        f"glibc.malloc.mmap_threshold={4 * 1024 * 1024}",
        # As the default becomes once a large block was freed, in order of magnitude. The threshold
        # above would fix it at 128 KiB, so that buffers were returned and fetched again.
        f"glibc.malloc.trim_threshold={8 * 1024 * 1024}",
        # Huge pages: as 4,750 small ones, a hash's memory would cost it a third more CPU time.
        "glibc.malloc.hugetlb=1",
    )
)


def build_commit() -> str:
    """Return the commit from which the image was built; ``unknown`` outside an image."""
    commit = os.environ.get(COMMIT_VARIABLE, "")
    return commit if re.fullmatch(r"[A-Za-z0-9_.+-]{1,64}", commit) else "unknown"


class SharedMetrics(NamedTuple):
    """Location of a worker's metrics.

    Attributes:
        folder: the instance's directory with the files of all its workers.
        number: the worker's number, which no other worker has at the same time.
    """

    folder: Path
    number: str


def environment_of_worker(metrics: SharedMetrics | None) -> dict[str, str]:
    """Return the environment of a worker with shared metrics, or with its own if None.

    It also makes the allocator return large blocks, unless the operator has tuned it.
    """
    inherited = {
        _ALLOCATOR_VARIABLE: _ALLOCATOR,
        **{
            name: value
            for name, value in os.environ.items()
            if name not in {_METRICS_FOLDER, WORKER_NUMBER_VARIABLE}
        },
    }
    if metrics is None:
        return inherited
    return inherited | {
        _METRICS_FOLDER: str(metrics.folder),
        WORKER_NUMBER_VARIABLE: metrics.number,
    }


def shared_metrics() -> SharedMetrics | None:
    """Return where this process shares metrics with others; None if it keeps its own."""
    folder, number = os.environ.get(_METRICS_FOLDER), os.environ.get(WORKER_NUMBER_VARIABLE)
    return SharedMetrics(Path(folder), number) if folder and number else None
