"""Debouncing of log events: a fault that refuses every request is not logged for every request."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

INTERVAL_SECONDS = 5.0
"""Between two lines of one kind."""

MAX_KINDS = 256
"""Distinct kinds kept; beyond it the least recently logged one is evicted."""


class Debounce:
    """Limits the lines of each kind, and counts what is left out; one for each process.

    Args:
        interval: seconds between two lines of one kind.
        clock: tells seconds that never run backwards.
    """

    def __init__(
        self,
        interval: float = INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval
        self._clock = clock
        # When a kind may be logged next, and how many events were left out since the last line.
        self._kinds: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def admit(self, kind: Hashable) -> int | None:
        """Decide whether to log an event.

        Returns:
            None if not; else how many of its kind were left out since the last line.
        """
        now = self._clock()
        due, left_out = self._kinds.get(kind, (now, 0))
        if now < due:
            self._kinds[kind] = (due, left_out + 1)
            return None
        self._kinds[kind] = (now + self._interval, 0)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)
        return left_out
