"""Watchdog of a worker's lifeline before its event loop runs.

A worker imports its code for a second before its loop starts. Until then a thread watches the pipe,
so that a starting worker exits at once when its supervisor does.
"""

import os
import select
from threading import Event, Thread

_handed_over = Event()


def watch(lifeline_fd: int) -> None:
    """Exit this process without cleanup if the lifeline closes before ``hand_over``."""

    def wait() -> None:
        # Nothing is ever written to the pipe, so it becomes readable when its other end is closed.
        poll = select.poll()
        poll.register(lifeline_fd, select.POLLIN)
        poll.poll()
        if not _handed_over.is_set():
            os._exit(1)

    Thread(target=wait, name="lifeline", daemon=True).start()


def hand_over() -> None:
    """Stop watching: from now on the event loop does, and shuts down gracefully."""
    _handed_over.set()
