"""Errors of writes that group commit does not do."""

import pytest

from catalog.errors import Conflict, DatabaseBusy, DatabaseUnavailable, IdempotencyKeyInUse
from catalog.products.overload import WriteRefusals


class TestWriteRefusals:
    def test_refused_write_was_not_done_and_one_beyond_its_deadline_may_be(self) -> None:
        refusals = WriteRefusals()

        assert isinstance(refusals.full(), DatabaseBusy)
        assert isinstance(refusals.expired(), DatabaseBusy)
        assert isinstance(refusals.timed_out(), DatabaseUnavailable)
        assert isinstance(refusals.key_in_use(), IdempotencyKeyInUse)

    @pytest.mark.parametrize(
        ("error", "is_undetermined"),
        [(DatabaseUnavailable(), True), (Conflict(), False), (ZeroDivisionError(), False)],
    )
    def test_batch_whose_database_did_not_answer_may_be_committed(
        self, error: Exception, is_undetermined: bool
    ) -> None:
        assert WriteRefusals().is_undetermined(error) is is_undetermined
