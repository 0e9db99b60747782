"""LoopLag: work that blocks the event loop shows, and waiting does not."""

import asyncio
import time

from catalog.concurrency.loop_lag import LoopLag


class TestLoopLag:
    async def test_blocking_work_shows_as_lag(self) -> None:
        lags: list[float] = []
        lag = LoopLag(lags.append, interval_seconds=0.01)
        await lag.start()

        time.sleep(0.1)
        await asyncio.sleep(0.02)
        await lag.stop()

        assert 0.09 <= max(lags) < 5

    async def test_lag_is_measured_again_and_again(self) -> None:
        lags: list[float] = []
        lag = LoopLag(lags.append, interval_seconds=0.001)
        await lag.start()

        async with asyncio.timeout(30):
            while len(lags) < 3:
                await asyncio.sleep(0)
        await lag.stop()

    async def test_waiting_does_not_show_as_lag(self) -> None:
        lags: list[float] = []
        measured = asyncio.Event()

        def observe(seconds: float) -> None:
            lags.append(seconds)
            # Other work on the machine adds lag now and then.
            if seconds < 0.02:
                measured.set()

        lag = LoopLag(observe, interval_seconds=0.02)
        await lag.start()
        async with asyncio.timeout(30):
            await measured.wait()
        await lag.stop()

        assert min(lags) >= 0

    async def test_lag_is_not_measured_after_a_stop(self) -> None:
        lags: list[float] = []
        lag = LoopLag(lags.append, interval_seconds=0.001)
        await lag.start()
        await lag.stop()
        await lag.stop()

        await asyncio.sleep(0.01)

        assert lags == []
