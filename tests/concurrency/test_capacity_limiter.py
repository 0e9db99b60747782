"""Operations beyond a capacity are refused at once, and a slot is freed however its holder ends."""

import pytest

from catalog.concurrency.capacity_limiter import CapacityLimiter


class FullError(Exception):
    """The error of these tests."""


class TestCapacityLimiter:
    def test_caller_beyond_the_capacity_is_refused(self) -> None:
        limiter = CapacityLimiter(2, FullError)

        with limiter.taken(), limiter.taken(), pytest.raises(FullError), limiter.taken():
            pass

    def test_slot_is_free_again_after_its_holder_failed(self) -> None:
        limiter = CapacityLimiter(1, FullError)

        with pytest.raises(ZeroDivisionError), limiter.taken():
            raise ZeroDivisionError

        with limiter.taken(), pytest.raises(FullError), limiter.taken():
            pass
