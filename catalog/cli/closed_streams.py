"""Standard streams that were closed before the start (``>&-``), for which Python has None."""

import errno
import os
import sys
from io import RawIOBase, TextIOWrapper
from typing import Any, BinaryIO, cast


class _Closed(RawIOBase):
    """Standard stream that was closed before the start: reads and writes fail.

    Args:
        name: what the error calls it.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def read1(self, _size: int = -1, /) -> bytes:
        raise self._error()

    def readinto(self, _buffer: object, /) -> int:
        raise self._error()

    def write(self, data: Any, /) -> int:
        # Nothing is written to find out whether a stream is binary.
        if len(data) == 0:
            return 0
        raise self._error()

    def _error(self) -> OSError:
        return OSError(errno.EBADF, f"{self._name} is closed")


class _ClosedOutput(TextIOWrapper):
    """Standard output that was closed before the start: discards messages, and refuses data."""

    @property
    def buffer(self) -> BinaryIO:
        return cast("BinaryIO", _Closed("Standard output"))


def replace_closed_streams() -> None:
    """Replace them by streams that refuse data, and discard messages."""
    if sys.stdin is None:
        sys.stdin = TextIOWrapper(cast("BinaryIO", _Closed("Standard input")))
    # Messages do not fail: a command that has written to the database has succeeded.
    if sys.stdout is None:
        sys.stdout = _ClosedOutput(_null(1), encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = TextIOWrapper(_null(2), encoding="utf-8")


def _null(descriptor: int) -> BinaryIO:
    """Open the null device as a file descriptor, which the service's workers inherit."""
    opened = os.open(os.devnull, os.O_WRONLY)
    os.dup2(opened, descriptor)
    os.set_inheritable(descriptor, True)
    if opened != descriptor:
        os.close(opened)
    return os.fdopen(descriptor, "wb")
