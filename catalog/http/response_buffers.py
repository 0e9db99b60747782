"""Unsent bytes of responses: counted, bounded, and dropped when a client stalls.

The kernel buffers a little for each connection; what a client does not read beyond that stays in
this process. So each client must keep reading, and the sum over all clients is bounded.
"""

import asyncio
import fcntl
import socket
import struct
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from termios import TIOCOUTQ
from typing import Any, Protocol

from catalog.errors import Overloaded
from catalog.observability.metrics import STALLED_CLIENTS, count_rejection

LARGE_BYTES = 64 * 1024
"""From this size on a body is not copied behind its head, and must be admitted first."""

SHARED_BYTES = 4 * 1024
"""From this size on a piece of a stream is not copied: all its followers hold the same object.

Copies of shorter ones are bounded by the number of followers.
"""

MAX_BUFFERED_BYTES = 24 * 1024 * 1024
"""Bytes of unsent responses in one process; beyond it, large responses are refused with 503.

Room for a hundred of the largest ordinary pages, and little beside the 100 MB of a worker.
"""

STALL_SECONDS = 8.0
"""Time without progress after which a client is dropped.

Longer than the retransmissions of a bad mobile link, and shorter than the 10 s that nginx gives the
same client.
"""

SWEEP_SECONDS = 0.25
"""Interval between sweeps over the connections with unsent bytes."""

SWEPT_AT_A_TIME = 100
"""Clients that are looked at in one turn of the event loop. To drop them takes some 15 ms."""

PROGRESS_BYTES = 1024
"""Bytes that a client must read within the time-out, or all that is left if that is less."""

GRACE_SECONDS = 1.0
"""Age of a response before its client can be dropped to make room for others; none is needed beyond
twice the bound."""

_SHORTEST_SECONDS = 0.001

_RESET = struct.pack("ii", 1, 0)


class Transport(Protocol):
    """The part of ``asyncio.WriteTransport`` that is used here."""

    def get_write_buffer_size(self) -> int: ...
    def get_extra_info(self, name: str, /) -> Any: ...
    def abort(self) -> None: ...


class _Waiting:
    """A response, or a part of one, that its client has not read yet.

    Attributes:
        began_at: when it was written, by the loop's clock.
        untaken: unread bytes at the client's last progress.
        taken_at: time of the client's last progress.
        size: unread bytes at the beginning.
    """

    __slots__ = ("began_at", "size", "taken_at", "transport", "untaken")

    def __init__(self, transport: Transport, now: float) -> None:
        self.transport = transport
        self.began_at = self.taken_at = now
        self.size = self.untaken = _untaken(transport)

    def update(self, now: float) -> None:
        """Record the client's progress."""
        untaken = _untaken(self.transport)
        if untaken <= self.untaken - PROGRESS_BYTES:
            self.untaken, self.taken_at = untaken, now

    def rate(self, now: float) -> float:
        """Return the client's reading rate in bytes per second."""
        return (self.size - self.untaken) / max(now - self.began_at, _SHORTEST_SECONDS)


class ResponseBuffers:
    """Unsent responses in the transports of one process.

    A page that is sent to several clients is one object, and counts once.

    Args:
        max_bytes: bound on unsent bytes; beyond it large responses are refused, and the slowest
            clients are dropped.
        timeout: seconds without progress after which a client is dropped.
    """

    def __init__(self, *, max_bytes: int, timeout: float) -> None:
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._waiting: set[_Waiting] = set()
        self._readers: Counter[int] = Counter()
        self._held = 0
        self._sweep: asyncio.Handle | None = None
        self._unswept: list[_Waiting] = []

    @property
    def held_bytes(self) -> int:
        """Unsent bytes."""
        return self._held

    def admit(self, size: int | None = None) -> None:
        """Check whether a response may be sent.

        Args:
            size: bytes; None for a stream.

        Raises:
            Overloaded: the response is large, and the bound on unsent bytes is reached.
        """
        if self._held >= self._max_bytes and (size is None or size >= LARGE_BYTES):
            count_rejection("responses")
            raise Overloaded("Too many responses are waiting for slow clients.")

    @contextmanager
    def holding(self, transport: Transport, parts: Sequence[bytes]) -> Iterator[None]:
        """Track what was written to a transport until its client has read it.

        Args:
            transport: may be aborted meanwhile.
            parts: the written objects themselves, because shared ones count once.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(transport, loop.time())
        self._waiting.add(waiting)
        for part in parts:
            if not self._readers[id(part)]:
                self._held += len(part)
            self._readers[id(part)] += 1
        if self._sweep is None:
            self._sweep = loop.call_later(SWEEP_SECONDS, self._begin_sweep, loop)
        try:
            yield
        finally:
            self._waiting.discard(waiting)
            for part in parts:
                self._readers[id(part)] -= 1
                if not self._readers[id(part)]:
                    del self._readers[id(part)]
                    self._held -= len(part)

    def _begin_sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._unswept = list(self._waiting)
        self._sweep = None
        if self._unswept:
            self._run(loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drop stalled clients; and, beyond the bound on unsent bytes, the slowest ones."""
        now = loop.time()
        # A dropped client's bytes are released when its transport reports the loss, in a later turn
        # of the event loop.
        for _ in range(min(SWEPT_AT_A_TIME, len(self._unswept))):
            waiting = self._unswept.pop()
            # Others have been read, or dropped, since the sweep began.
            if waiting in self._waiting:
                waiting.update(now)
                if now - waiting.taken_at >= self._timeout:
                    self._drop(waiting)
        if self._unswept:
            self._sweep = loop.call_soon(self._run, loop)
            return
        if self._held >= self._max_bytes:
            grace = GRACE_SECONDS if self._held < 2 * self._max_bytes else 0.0
            slow = [each for each in self._waiting if now - each.began_at >= grace]
            slow.sort(key=lambda each: each.rate(now))
            # Half of them at a time: their pages may be shared with clients that stay.
            for waiting in slow[: (len(slow) + 1) // 2]:
                self._drop(waiting)
        self._sweep = loop.call_later(SWEEP_SECONDS, self._begin_sweep, loop)

    def _drop(self, waiting: _Waiting) -> None:
        self._waiting.discard(waiting)
        STALLED_CLIENTS.inc()
        # Without a reset the kernel would go on retransmitting what it has buffered.
        with suppress(OSError, AttributeError):
            connection = waiting.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        waiting.transport.abort()


def _untaken(transport: Transport) -> int:
    """Return the bytes that the client has not acknowledged, those in the kernel included.

    The kernel accepts more only when a third of its own buffer is free, so the transport's buffer
    alone would not show the progress of a slow client.
    """
    queued = array("i", [0])
    with suppress(OSError, AttributeError, ValueError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, queued)
    return transport.get_write_buffer_size() + queued[0]
