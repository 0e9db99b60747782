"""Deadlines: a wait before the work is part of them."""

import asyncio

import pytest

from catalog.db import deadlines
from catalog.db.deadlines import after_waiting, deadline, deadline_start, shared_deadline


def ends_in(limit: asyncio.Timeout) -> float:
    """Return the seconds until a deadline."""
    when = limit.when()
    assert when is not None
    return when - asyncio.get_running_loop().time()


async def test_deadline_begins_now() -> None:
    assert ends_in(deadline(2)) == pytest.approx(2, abs=0.5)


async def test_wait_before_the_work_is_part_of_its_deadline() -> None:
    with after_waiting(10):
        assert ends_in(deadline(20)) == pytest.approx(10, abs=0.5)
        with shared_deadline(15):
            assert ends_in(deadline(20)) == pytest.approx(5, abs=0.5)

    assert ends_in(deadline(20)) == pytest.approx(20, abs=0.5)
    assert deadline_start() == pytest.approx(asyncio.get_running_loop().time(), abs=0.5)


async def test_work_whose_time_was_spent_waiting_times_out() -> None:
    with after_waiting(2), pytest.raises(TimeoutError):
        async with deadline(2):
            # The deadline has passed, so this does not last.
            await asyncio.sleep(60)


async def test_wait_is_not_part_of_what_begins_much_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "AFTER_SECONDS", 0.05)

    with after_waiting(10):
        # Longer than a wait counts for.
        await asyncio.sleep(0.06)

        assert ends_in(deadline(20)) == pytest.approx(20, abs=0.5)
