"""Watchdog that fails a test when a piece of work blocks the event loop for too long."""

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import pytest

from tests.frozen_objects import frozen_objects

MAX_PIECE_SECONDS = 0.05
"""CPU seconds; the service's own aim is 0.02, the rest allows for a busy machine."""


class LoopBlocked(AssertionError):
    """A piece of work blocked the event loop for longer than allowed."""


class Watchdog:
    """Context manager that measures the longest piece of work between two turns of the loop.

    A piece is one call of the loop: a task's step from one suspending ``await`` to the next, or a
    callback. It is measured as CPU time of the thread that runs the loop. Wall-clock time would
    include time taken by other processes and threads, and would fail at random on a busy machine.
    The price is that work that sleeps on the loop's thread is not detected; ruff's ``ASYNC`` rules
    look for such calls.

    Objects that exist at the beginning are frozen, that is ignored by the garbage collector.
    Otherwise a piece would pay for a collection of all objects of the test session.

    It works on asyncio's own loop, for all pieces in the thread that entered it: the test and the
    app that it calls in-process alike. So prepare large inputs before the block, and check large
    responses after it. Code without any ``await`` in the ``with`` block is one piece.

    Args:
        limit: CPU seconds that a piece may take.

    Attributes:
        longest: CPU seconds of the longest piece so far.
        culprit: the task or callback that ran in it.
    """

    def __init__(self, limit: float = MAX_PIECE_SECONDS) -> None:
        self.limit = limit
        self.longest = 0.0
        self.culprit = ""
        self._begun: float | None = None
        self._current: object = None
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        """Begin to measure."""
        # Without a collection first, which takes a second after thousands of tests: garbage that is
        # frozen now is collected after the block.
        frozen_objects.freeze()
        original: Callable[[asyncio.Handle], None] = vars(asyncio.Handle)["_run"]
        thread = threading.get_ident()

        def run_measured(handle: asyncio.Handle) -> None:
            if threading.get_ident() != thread:
                original(handle)
                return
            # Only the step that entered the block can be open here, and it has ended by now.
            self._end_piece()
            self._begin_piece(handle)
            try:
                original(handle)
            finally:
                self._end_piece()

        self._patch.setattr(asyncio.Handle, "_run", run_measured)
        self._begin_piece("the step that began to watch")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop measuring, and check the longest piece.

        Raises:
            LoopBlocked: a piece took more than ``limit``, and nothing else was raised.
        """
        self._end_piece()
        self._patch.undo()
        frozen_objects.thaw()
        if self.longest > self.limit and error is None:
            raise LoopBlocked(
                f"the event loop was held for {self.longest * 1000:.0f} ms in one piece, "
                f"more than {self.limit * 1000:.0f} ms, by {self.culprit}"
            )

    def _begin_piece(self, current: object) -> None:
        self._current = current
        self._begun = time.thread_time()

    def _end_piece(self) -> None:
        if self._begun is None:
            return
        seconds = time.thread_time() - self._begun
        self._begun = None
        if seconds > self.longest:
            self.longest = seconds
            self.culprit = _description(self._current)


def _description(current: Any) -> str:
    """Name the code that a handle has run: the coroutine of a task, else the callback."""
    callback = getattr(current, "_callback", None) or current
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return f"task {task.get_name()}: {task.get_coro()!r}"
    return repr(callback) if callback is not None else "a callback that was cancelled since"
