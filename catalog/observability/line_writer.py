"""Writer of log lines in batches, in a thread of its own, as nginx with ``buffer`` and ``flush``.

A line costs the event loop a copy into a buffer. A reader that stalls blocks the thread alone:
lines that exceed the bound are dropped and counted.
"""

import os
import select
import stat
from collections.abc import Callable, Iterator
from threading import Event, Lock, Thread
from time import monotonic

FLUSH_SECONDS = 0.1
"""Time for which lines are collected; a process that is killed loses that many."""

MAX_BYTES = 4 * 1024 * 1024
"""Bound of the lines that wait to be written: some seconds of them at full load."""


class LineWriter:
    """Writer of lines to a file descriptor, which it does not close.

    Args:
        fd: the file descriptor.
        on_drop: called with the number of lines that are dropped, on any thread.
        max_bytes: bound of the lines that wait, and of those that are being written.
    """

    def __init__(
        self, fd: int, *, on_drop: Callable[[int], object], max_bytes: int = MAX_BYTES
    ) -> None:
        self._fd = fd
        self._on_drop = on_drop
        self._max_bytes = max_bytes
        # Other processes write to the same pipe, where only so many bytes at once stay together
        # (POSIX, write). In a file, which is opened for appending, one write of any size does.
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._most_at_once = 2 * max_bytes if is_file else select.PIPE_BUF
        self._lock = Lock()
        self._lines = bytearray()
        self._has_lines, self._is_closing = Event(), Event()
        self._ends_at = float("inf")
        self._thread = Thread(target=self._run, name="log-lines", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue a line, which ends with a line break; drop it if too many wait."""
        with self._lock:
            is_first = not self._lines
            is_full = len(self._lines) >= self._max_bytes
            if not is_full:
                self._lines += line
        if is_full:
            self._on_drop(1)
        elif is_first:
            self._has_lines.set()

    def close(self, *, within: float) -> None:
        """Write the remaining lines and end the thread; idempotent.

        Args:
            within: seconds after which unread lines are dropped.
        """
        self._ends_at = monotonic() + within
        self._is_closing.set()
        self._has_lines.set()
        self._thread.join(within)

    def _run(self) -> None:
        while not self._is_closing.is_set():
            self._has_lines.wait()
            self._is_closing.wait(FLUSH_SECONDS)
            self._has_lines.clear()
            with self._lock:
                lines, self._lines = self._lines, bytearray()
            for batch in self._batches(bytes(lines)):
                self._write(batch)

    def _batches(self, lines: bytes) -> Iterator[bytes]:
        """Divide lines into batches, each for a single write."""
        start = 0
        while start < len(lines):
            # The last whole line that fits, or a longer one alone.
            end = lines.rfind(b"\n", start, start + self._most_at_once) + 1
            end = end or lines.index(b"\n", start) + 1
            yield lines[start:end]
            start = end

    def _write(self, batch: bytes) -> None:
        rest = memoryview(batch)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    if monotonic() > self._ends_at:
                        raise
                    select.select([], [self._fd], [], FLUSH_SECONDS)
        except OSError:
            # The reader is gone, or the disk is full.
            self._on_drop(batch.count(b"\n"))
