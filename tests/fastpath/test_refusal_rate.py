"""Throttled reads after 503s: short bursts cause no pause, longer ones up to a second."""

import asyncio

import pytest

from catalog.fastpath import refusal_rate
from catalog.fastpath.refusal_rate import RefusalRate


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect the seconds of pauses, which are not waited for."""
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    return pauses


async def test_few_refusals_cause_no_pause(pauses: list[float]) -> None:
    await RefusalRate().pause()

    assert pauses == []


async def test_pauses_grow_up_to_the_time_after_which_clients_try_again(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_rate, "REFUSALS_A_SECOND", 50)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 100.0)
    rate = RefusalRate()

    for _ in range(100):
        await rate.pause()

    longest = refusal_rate.LONGEST_PAUSE_SECONDS
    assert pauses == pytest.approx([min(number / 50, longest) for number in range(1, 101)])
