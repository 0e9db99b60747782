"""Counts: what is left of a limit, and when it is reset."""

from math import floor

from hypothesis import given
from hypothesis import strategies as st

from catalog.http.limit_store import Count
from catalog.settings import Rate


def weight(previous: int, previous_ttl: float, current: int, rate: Rate) -> int:
    """Return how many requests a window holds, interpolated as in ``limits``."""
    return floor(previous * previous_ttl / rate.seconds) + current


class TestCount:
    def test_previous_window_is_weighted_by_its_remaining_time(self) -> None:
        count = Count.of(
            Rate(10, 60), admitted=True, previous=8, previous_ttl=30, current=3, current_ttl=90
        )

        # 8 * 30/60 + 3 = 7. The next of the eight leaves the sliding window right now.
        assert (count.remaining, count.reset_seconds) == (3, 1)

    def test_reset_is_at_the_next_window_if_the_previous_was_empty(self) -> None:
        count = Count.of(
            Rate(10, 60), admitted=True, previous=0, previous_ttl=0, current=1, current_ttl=101.5
        )

        assert (count.remaining, count.reset_seconds) == (9, 42)

    @given(
        limit=st.integers(1, 10_000),
        seconds=st.sampled_from([1, 60, 3600, 86400]),
        used=st.floats(0, 1),
        elapsed=st.floats(0, 0.999),
    )
    def test_request_is_admitted_after_the_reset(
        self, limit: int, seconds: int, used: float, elapsed: float
    ) -> None:
        rate = Rate(limit, seconds)
        previous, left = round(limit * used), seconds * (1 - elapsed)
        current = limit - weight(previous, left, 0, rate)

        count = Count.of(
            rate,
            admitted=False,
            previous=previous,
            previous_ttl=left,
            current=current,
            current_ttl=left + seconds,
        )

        assert count.remaining == 0
        # A request takes a moment to arrive, and windows are half open.
        later = count.reset_seconds + 0.001
        if later < left:
            held = weight(previous, left - later, current, rate)
        else:
            held = weight(current, max(0, seconds - (later - left)), 0, rate)
        assert held < limit
