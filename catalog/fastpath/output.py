"""Output event of hypercorn's protocols that does not copy large bodies."""

from collections.abc import Sequence

from hypercorn.events import Event, RawData

from catalog.http.response_buffers import LARGE_BYTES


class Parts(Event):
    """Byte strings to send in order; the transport keeps the objects instead of copying them."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[bytes]) -> None:
        self.parts = parts


def sendable(parts: Sequence[bytes], *, joined_below: int = LARGE_BYTES) -> Event:
    """Return the event that sends parts: uncopied from that size on, and shorter ones joined."""
    if sum(map(len, parts)) < joined_below:
        # Faster than several parts.
        return RawData(b"".join(parts))
    return Parts([part for part in parts if part])
