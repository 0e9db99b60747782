"""Bytes of answers that wait for clients to take them: counted, bounded, and given up in time.

The kernel keeps a little for each connection; what a client does not take beyond that stays in
this process. So a client must go on taking, and all of them together may hold only so much.
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
"""From which on a part is sent without copying it behind its head, and admitted first."""

SWEEP_SECONDS = 0.25
"""Between two looks at the connections that have something waiting."""

PROGRESS_BYTES = 1024
"""What a client must take within the time-out, at least, or all that is left."""

GRACE_SECONDS = 1.0
"""For which an answer may wait before its client can be dropped to make room for others."""

_RESET = struct.pack("ii", 1, 0)


class Transport(Protocol):
    """The part of ``asyncio.WriteTransport`` that is needed here."""

    def get_write_buffer_size(self) -> int: ...
    def get_extra_info(self, name: str, /) -> Any: ...
    def abort(self) -> None: ...


class _Waiting:
    """An answer, or a part of one, that its client has not taken yet.

    Attributes:
        began_at: when it was written, by the loop's clock.
        untaken: bytes that were left when the client last took some.
        taken_at: when that was.
        size: bytes that were left at the beginning.
    """

    __slots__ = ("began_at", "size", "taken_at", "transport", "untaken")

    def __init__(self, transport: Transport, now: float) -> None:
        self.transport = transport
        self.began_at = self.taken_at = now
        self.size = self.untaken = _untaken(transport)

    def look(self, now: float) -> None:
        """Take note of what the client has taken."""
        untaken = _untaken(self.transport)
        if untaken <= self.untaken - PROGRESS_BYTES:
            self.untaken, self.taken_at = untaken, now

    def rate(self, now: float) -> float:
        """Bytes that the client has taken in a second."""
        return (self.size - self.untaken) / (now - self.began_at)


class ResponseBuffers:
    """Answers of one process that wait in its transports.

    A page that several clients are sent is one object, and counts once.

    Args:
        max_bytes: that may wait; beyond it large answers are refused, and those who take the least
            are dropped.
        timeout: seconds in which a client must take something, or be dropped.
    """

    def __init__(self, *, max_bytes: int, timeout: float) -> None:
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._waiting: set[_Waiting] = set()
        self._readers: Counter[int] = Counter()
        self._held = 0
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes that wait."""
        return self._held

    def admit(self, size: int | None = None) -> None:
        """See whether an answer may be sent.

        Args:
            size: bytes; None for a stream.

        Raises:
            Overloaded: it is large, and too much waits already.
        """
        if self._held >= self._max_bytes and (size is None or size >= LARGE_BYTES):
            count_rejection("responses")
            raise Overloaded("Too many answers wait for their clients.")

    @contextmanager
    def holding(self, transport: Transport, parts: Sequence[bytes]) -> Iterator[None]:
        """Watch what was written to a transport, until it has been taken.

        Args:
            transport: may be aborted meanwhile.
            parts: what was written, the objects themselves.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(transport, loop.time())
        self._waiting.add(waiting)
        for part in parts:
            if not self._readers[id(part)]:
                self._held += len(part)
            self._readers[id(part)] += 1
        if self._sweep is None:
            self._sweep = loop.call_later(SWEEP_SECONDS, self._run, loop)
        try:
            yield
        finally:
            self._waiting.discard(waiting)
            for part in parts:
                self._readers[id(part)] -= 1
                if not self._readers[id(part)]:
                    del self._readers[id(part)]
                    self._held -= len(part)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drop those who take nothing; and, if too much waits, those who take the least."""
        self._sweep = None
        if not self._waiting:
            return
        now = loop.time()
        # Each one is gone only when its transport has told so, which it does in a turn of its own.
        for waiting in list(self._waiting):
            waiting.look(now)
            if now - waiting.taken_at >= self._timeout:
                self._drop(waiting)
        if self._held >= self._max_bytes:
            slow = [each for each in self._waiting if now - each.began_at >= GRACE_SECONDS]
            slow.sort(key=lambda each: each.rate(now))
            # Half of them at a time: what they hold may be shared with those who stay.
            for waiting in slow[: (len(slow) + 1) // 2]:
                self._drop(waiting)
        self._sweep = loop.call_later(SWEEP_SECONDS, self._run, loop)

    def _drop(self, waiting: _Waiting) -> None:
        self._waiting.discard(waiting)
        STALLED_CLIENTS.inc()
        # Otherwise the kernel would go on offering what it has.
        with suppress(OSError, AttributeError):
            connection = waiting.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        waiting.transport.abort()


def _untaken(transport: Transport) -> int:
    """Bytes that the client has not acknowledged, those in the kernel included.

    The kernel asks for more only when a third of its own buffer is free, so the transport's alone
    would not show a slow client that goes on.
    """
    queued = array("i", [0])
    with suppress(OSError, AttributeError, ValueError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, queued)
    return transport.get_write_buffer_size() + queued[0]
