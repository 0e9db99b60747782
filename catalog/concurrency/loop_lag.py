"""Lag of the event loop."""

import asyncio
from collections.abc import Callable

LAG_SECONDS = 0.05
"""Interval at which the lag of the event loop is measured."""


class LoopLag:
    """Monitor of the event loop's lag: how much later than scheduled it runs a call-back.

    Work that blocks the loop delays all clients of this process by that much. A timer instead of a
    task keeps the cost of a measurement at a few microseconds.

    Args:
        observe: called with each lag, in seconds.
        interval_seconds: time between measurements.
    """

    def __init__(
        self, observe: Callable[[float], None], *, interval_seconds: float = LAG_SECONDS
    ) -> None:
        self._observe = observe
        self._interval_seconds = interval_seconds
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start measuring."""
        self._wait()

    async def stop(self) -> None:
        """Stop measuring; idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(
            self._interval_seconds, self._measure, loop.time() + self._interval_seconds
        )

    def _measure(self, due: float) -> None:
        # Loops round to the resolution of their clock, so a call-back may run early by that much.
        self._observe(max(0.0, asyncio.get_running_loop().time() - due))
        self._wait()
