"""Rate of 503s: clients that retry at once would leave no time for admitted requests."""

import asyncio

REFUSALS_A_SECOND = 1000
"""Rate of 503s per process beyond which reads are throttled; each costs some 0.2 ms."""

SHORTEST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 1.0
"""Equal to the ``Retry-After`` of rejected requests."""


class RefusalRate:
    """Throttle of the connections whose last response was a 503."""

    def __init__(self) -> None:
        self._until = 0.0

    async def pause(self) -> None:
        """Delay the next read from a refused client, if there were too many 503s."""
        now = asyncio.get_running_loop().time()
        until = max(now, self._until) + 1 / REFUSALS_A_SECOND
        until = min(until, now + LONGEST_PAUSE_SECONDS)
        self._until = until
        # A shorter pause would cost more than it saves.
        if until - now > SHORTEST_PAUSE_SECONDS:
            await asyncio.sleep(until - now)
