"""Incomplete heads: what all connections hold of them, and which are refused."""

import asyncio

import pytest

from catalog.fastpath.incomplete_head import LONG_BYTES, MAX_BYTES, IncompleteHead


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> list[IncompleteHead]:
    """Return the heads of connections that have sent nothing yet."""
    monkeypatch.setattr(IncompleteHead, "total_bytes", 0)
    return [IncompleteHead() for _ in range(3)]


async def test_head_begins_with_its_first_bytes(
    heads: list[IncompleteHead], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    head = heads[0]
    assert head.began_at == 0

    head.note(10)
    now = 200.0
    head.note(20)

    assert head.began_at == 100
    head.note(0)
    assert head.began_at == 0


async def test_bytes_of_all_connections_are_summed_up(heads: list[IncompleteHead]) -> None:
    for size, head in enumerate(heads, 1):
        head.note(100)
        head.note(100 * size)
    assert IncompleteHead.total_bytes == 600

    heads[1].note(0)

    assert IncompleteHead.total_bytes == 400


async def test_only_a_long_head_beyond_the_bound_exceeds_limit(heads: list[IncompleteHead]) -> None:
    short, long, longest = heads
    longest.note(MAX_BYTES - 2 * LONG_BYTES)
    short.note(LONG_BYTES - 1)
    long.note(LONG_BYTES)
    assert not any(head.exceeds_limit for head in heads)

    longest.note(MAX_BYTES)

    assert [head.exceeds_limit for head in heads] == [False, True, True]
