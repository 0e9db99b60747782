"""Errors of products' queues and limits: each refusal is counted by its reason."""

import pytest

from catalog.errors import (
    Conflict,
    DatabaseBusy,
    DatabaseUnavailable,
    IdempotencyKeyInUse,
    Overloaded,
)
from catalog.products.overload import WriteRefusals, page_expired, too_many
from tests.numbers import Change
from tests.support import Caller


class TestWriteRefusals:
    def test_refused_write_was_not_done_and_one_beyond_its_deadline_may_be(self) -> None:
        refusals = WriteRefusals()

        assert isinstance(refusals.full(), DatabaseBusy)
        assert isinstance(refusals.expired(), DatabaseBusy)
        assert isinstance(refusals.timed_out(), DatabaseUnavailable)
        assert isinstance(refusals.key_in_use(), IdempotencyKeyInUse)

    @pytest.mark.parametrize(
        ("error", "forbids_retry"),
        [
            (DatabaseUnavailable(), True),
            (DatabaseBusy(), True),
            (Conflict(), False),
            (ZeroDivisionError(), False),
        ],
    )
    def test_batch_is_not_retried_if_the_database_is_unavailable_or_busy(
        self, error: Exception, forbids_retry: bool
    ) -> None:
        assert WriteRefusals().forbids_retry(error) is forbids_retry


async def test_refusals_are_counted_by_their_reason(anyone: Caller) -> None:
    change, refusals = await Change.since_now(anyone), WriteRefusals()
    refuse_import = too_many("Too many imports are running.", "imports")

    errors = [
        refusals.full(),
        refusals.expired(),
        page_expired(),
        *(refuse_import() for _ in "abc"),
    ]

    reasons = ("writes", "pages", "imports")
    assert [await change.of("shed_total", reason=each) for each in reasons] == [2, 1, 3]
    assert [type(each) for each in errors] == [*[DatabaseBusy] * 3, *[Overloaded] * 3]
    assert str(errors[-1]) == "Too many imports are running."
