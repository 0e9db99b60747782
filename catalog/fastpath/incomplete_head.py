"""Heads of requests that have not arrived completely: since when, and how large they are."""

import asyncio
from typing import ClassVar

MAX_BYTES = 16 * 1024 * 1024
"""Limit on the bytes of incomplete heads in one process. Beyond it long heads are refused: clients
usually send a head at once, but an attacker could leave thousands incomplete."""

LONG_BYTES = 4096
"""Size from which a head is refused beyond ``MAX_BYTES``; most heads are shorter."""


class IncompleteHead:
    """The head that a connection has begun to send, if any.

    Attributes:
        total_bytes: of all connections of the process.
        size: bytes that have arrived.
        began_at: when it began, by the loop's clock; 0 if there is none.
    """

    total_bytes: ClassVar[int] = 0

    def __init__(self) -> None:
        self.size = 0
        self.began_at = 0.0

    def note(self, size: int) -> None:
        """Record the bytes that have arrived; 0 if no head is incomplete or the connection ends."""
        IncompleteHead.total_bytes += size - self.size
        self.size = size
        if not size:
            self.began_at = 0.0
        elif not self.began_at:
            self.began_at = asyncio.get_running_loop().time()

    @property
    def exceeds_limit(self) -> bool:
        """Whether it is long while all incomplete heads exceed ``MAX_BYTES``."""
        return self.size >= LONG_BYTES and IncompleteHead.total_bytes > MAX_BYTES
