"""The end of a worker's lifeline before its event loop looks at it.

A worker imports its code for a second, and its loop begins after that. Until then a thread watches
the pipe: a worker that has not begun ends at once when its supervisor does, whatever it is doing.
"""

import os
import select
from threading import Event, Thread

_handed_over = Event()


def watch(lifeline_fd: int) -> None:
    """End this process, without any tidying up, when the lifeline ends before ``hand_over``."""

    def wait() -> None:
        # Nothing is ever written into it, so it is readable when its other end is closed.
        poll = select.poll()
        poll.register(lifeline_fd, select.POLLIN)
        poll.poll()
        if not _handed_over.is_set():
            os._exit(1)

    Thread(target=wait, name="lifeline", daemon=True).start()


def hand_over() -> None:
    """Leave the lifeline to the event loop, which ends what has begun in good order."""
    _handed_over.set()
