"""Refused clients are read again at a limited rate, which the first of them does not notice."""

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
    rate = RefusalRate()

    for _ in range(100):
        await rate.pause()

    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(1 / 50, abs=0.01)
    assert pauses[10] == pytest.approx(11 / 50, abs=0.1)
    assert pauses[-1] == pytest.approx(refusal_rate.LONGEST_PAUSE_SECONDS)
