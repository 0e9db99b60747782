"""Turns: long work lets other tasks run once a turn is over, and not before."""

import asyncio

import pytest

from catalog.concurrency import turns
from catalog.concurrency.turns import Turn


class Clock:
    """Clock that shows the time it is set to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "monotonic", clock)
    monkeypatch.setattr(turns, "TURN_SECONDS", 2.0)
    return clock


async def yields(turn: Turn) -> bool:
    """Tell whether other tasks run at the end of a step, which waits for nothing else."""
    runs: list[None] = []
    asyncio.get_running_loop().call_soon(runs.append, None)
    async with asyncio.timeout(0.9):
        await turn.yield_if_over()
    return bool(runs)


class TestTurn:
    async def test_other_tasks_run_only_after_its_end(self, clock: Clock) -> None:
        turn = Turn()

        at_once = await yields(turn)
        clock.seconds += 2
        at_its_end = await yields(turn)
        clock.seconds += 0.5
        after_its_end = await yields(turn)

        assert (at_once, at_its_end, after_its_end) == (False, False, True)

    async def test_next_turn_is_as_long_and_begins_after_the_other_tasks(
        self, clock: Clock
    ) -> None:
        turn = Turn()
        clock.seconds += 3

        # Another task works for a while.
        asyncio.get_running_loop().call_soon(setattr, clock, "seconds", 110.0)
        assert await yields(turn)

        clock.seconds = 112
        assert not await yields(turn)
        clock.seconds = 112.5
        assert await yields(turn)
