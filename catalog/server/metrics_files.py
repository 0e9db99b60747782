"""In-memory folder in which the workers of an instance count, each in files of its own.

Workers get numbers, and a new worker inherits a dead one's number with its files: so no count is
lost with a worker, and the folder does not grow with the number of restarts.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from catalog.observability.logs import logger
from catalog.observability.metrics import WORKER_RESTARTS
from catalog.observability.shared_values import shared_value_class
from catalog.settings import SharedMetrics

_log = logger("catalog.server")

_PREFIX = "catalog-metrics-"
_OWNER = "owner"

ROOM_BYTES = 4 * 1024 * 1024
"""Free space required for the folder. A worker without room for its files counts alone."""

# In memory, because the files are written all the time and need not reach a disk.
IN_MEMORY = Path("/dev/shm")  # noqa: S108 (the folder in it is created safely)


class MetricsFiles:
    """Allocator of workers' numbers; without a folder each worker counts alone.

    Args:
        folder: folder of the shared files; None if there is none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._taken: set[int] = set()
        self._restarts = None
        if folder is not None:
            value = shared_value_class(SharedMetrics(folder, "supervisor"))
            (family,) = WORKER_RESTARTS.describe()
            name, meaning = family.name, family.documentation
            self._restarts = value("counter", name, f"{name}_total", (), (), meaning)

    def take_place(self) -> SharedMetrics | None:
        """Assign a number to a new worker and return where it counts; None without a folder."""
        if self._folder is None:
            return None
        number = next(each for each in range(len(self._taken) + 1) if each not in self._taken)
        self._taken.add(number)
        return SharedMetrics(self._folder, str(number))

    def leave_place(self, place: SharedMetrics | None) -> None:
        """Release a dead worker's number and its live gauges; its counters stay."""
        if place is not None:
            mark_process_dead(place.number, str(place.folder))
            self._taken.discard(int(place.number))

    def count_restart(self) -> None:
        """Count a worker that died and will be replaced."""
        if self._restarts is not None:
            self._restarts.inc(1)


@contextmanager
def metrics_files() -> Iterator[MetricsFiles]:
    """Create the folder, and remove those of instances that were killed."""
    with ExitStack() as stack:
        files = None
        for base in _bases():
            with suppress(OSError):
                _sweep(base)
                files = MetricsFiles(stack.enter_context(_folder_in(base)))
                break
        if files is None:
            _log.warning("metrics_not_shared", reason="There is no room for temporary files.")
        yield files or MetricsFiles(None)


def _bases() -> Iterator[Path]:
    yield IN_MEMORY
    with suppress(FileNotFoundError):
        yield Path(tempfile.gettempdir())


@contextmanager
def _folder_in(base: Path) -> Iterator[Path]:
    disk = os.statvfs(base)
    if disk.f_bavail * disk.f_frsize < ROOM_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    folder, owner = _make(base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(owner)


def _make(base: Path) -> tuple[Path, int]:
    """Create a folder; return it and the file descriptor that holds its lock until closed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        with suppress(FileNotFoundError):
            owner = os.open(folder / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(owner, fcntl.LOCK_EX)
            if (folder / _OWNER).exists():
                return folder, owner
            # Another instance swept the folder before it was locked, taking it for abandoned.
            os.close(owner)


def _sweep(base: Path) -> None:
    """Remove the folders of dead supervisors, whose locks are free."""
    for folder in base.glob(f"{_PREFIX}*"):
        # Skips folders of other users, and those just being created, which have no such file yet.
        with suppress(OSError):
            owner = os.open(folder / _OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(owner)
