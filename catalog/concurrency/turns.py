"""Turns on the event loop: long work yields to other tasks every few milliseconds."""

import asyncio
from time import monotonic

TURN_SECONDS = 0.005
"""Longest work on the event loop before yielding to other tasks, plus at most one step."""


class Turn:
    """Turn of a task that works in steps; it begins when the object is made."""

    def __init__(self) -> None:
        self._ends = monotonic() + TURN_SECONDS

    async def yield_if_over(self) -> None:
        """After a step, yield to other tasks if the turn is over, and begin the next one."""
        if monotonic() > self._ends:
            await asyncio.sleep(0)
            self._ends = monotonic() + TURN_SECONDS
