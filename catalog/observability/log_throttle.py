"""Throttling of log events: a fault that fails every request is not logged for every request."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

INTERVAL_SECONDS = 5.0
"""Minimum time between two lines of one kind."""

MAX_KINDS = 256
"""Distinct kinds kept; beyond it the least recently logged one is evicted."""


class LogThrottle:
    """Rate limit of log lines by kind, which counts suppressed events; one per process.

    Args:
        interval_seconds: shortest time between two lines of one kind.
        clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        interval_seconds: float = INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_seconds = interval_seconds
        self._clock = clock
        # By kind: time of the next allowed line, and events suppressed since the last one.
        self._kinds: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def admit(self, kind: Hashable) -> int | None:
        """Decide whether to log an event.

        Returns:
            None if not; otherwise the number of events of its kind suppressed since the last line.
        """
        now = self._clock()
        due, left_out = self._kinds.get(kind, (now, 0))
        if now < due:
            self._kinds[kind] = (due, left_out + 1)
            return None
        self._kinds[kind] = (now + self._interval_seconds, 0)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)
        return left_out
