"""Tests of the fault suite's judge: it detects each kind of broken promise."""

import pytest

from tests.faults.outcomes import LOST, READS, Outcome, first_success, slowest, violations

GRACE = 0.2

GOOD = Outcome("list", 1.0, 0.1, 200, "", "", 0.0)


def test_successes_and_proper_503s_are_no_violations() -> None:
    refused = GOOD._replace(seconds=2.1, status=503, code="database-unavailable", retry_after="1")

    assert violations([GOOD, refused], grace=GRACE) == []


@pytest.mark.parametrize(
    ("outcome", "finding"),
    [
        (GOOD._replace(status=500, code="internal-error"), "status"),
        (GOOD._replace(status=404), "status"),
        (GOOD._replace(status=LOST, seconds=0.1), "no answer"),
        (GOOD._replace(status=503), "no Retry-After"),
        (GOOD._replace(status=503, retry_after="soon"), "no Retry-After"),
        (GOOD._replace(status=503, retry_after="0"), "no Retry-After"),
        (GOOD._replace(seconds=2.3), "late"),
        (GOOD._replace(kind="create", status=201, seconds=5.3), "late"),
        (GOOD._replace(kind="readiness", seconds=1.3), "late"),
    ],
)
def test_broken_promise_is_detected(outcome: Outcome, finding: str) -> None:
    (found,) = violations([GOOD, outcome], grace=GRACE)

    assert found.startswith(f"{finding}:")


def test_slowest_considers_only_the_given_kinds() -> None:
    assert slowest([GOOD, GOOD._replace(kind="create", seconds=4.0)], READS) == 0.1


def test_first_success_ignores_failures_and_earlier_requests() -> None:
    later = GOOD._replace(begun=3.0, seconds=0.5)

    found = first_success([GOOD, later._replace(status=503), later], READS, 2.0)

    assert found == pytest.approx(1.5)
    assert first_success([GOOD], READS, 2.0) == float("inf")


def test_missing_product_is_allowed_only_if_it_may_be_gone() -> None:
    gone = GOOD._replace(kind="change", status=404)

    assert violations([gone], grace=GRACE)
    assert violations([gone], grace=GRACE, may_be_gone=True) == []
    assert violations([gone._replace(seconds=9.0)], grace=GRACE, may_be_gone=True)
