"""Outcomes of requests, and the judge that checks them against the promises."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

READ_SECONDS = 2.0
WRITE_SECONDS = 5.0
HEALTH_SECONDS = 1.0
LOST = 0
"""Status of a request without an answer."""


class Kind(NamedTuple):
    """A kind of request: its deadline in seconds, and its statuses besides 503."""

    seconds: float
    statuses: frozenset[int]


KINDS = {
    "list": Kind(READ_SECONDS, frozenset({200})),
    "page": Kind(READ_SECONDS, frozenset({200})),
    "one": Kind(READ_SECONDS, frozenset({200})),
    "mine": Kind(READ_SECONDS, frozenset({200})),
    "readiness": Kind(HEALTH_SECONDS, frozenset({200})),
    "create": Kind(WRITE_SECONDS, frozenset({201})),
    # A retry under the same key may meet the first attempt in progress (409), and a delete whose
    # answer was lost may have been committed (404).
    "keyed": Kind(WRITE_SECONDS, frozenset({201, 409})),
    "change": Kind(WRITE_SECONDS, frozenset({200})),
    "delete": Kind(WRITE_SECONDS, frozenset({200, 404})),
    "sign_in": Kind(WRITE_SECONDS, frozenset({200})),
}
_WHILE_GONE = frozenset({401, 404, 409})
"""Statuses while an account or a product is missing for a moment. A create that looked its account
up before a restore drops the table is rejected by the foreign key, which is 409."""

WRITES = frozenset({"create", "keyed", "change", "delete", "sign_in"})
READS = frozenset({"list", "page", "one", "mine"})


class Outcome(NamedTuple):
    """Outcome of a request.

    Attributes:
        kind: of ``KINDS``.
        begun: by the machine's monotonic clock, which all processes share.
        seconds: until the complete answer, without the client's scheduling lag.
        status: or ``LOST``.
        code: of the problem document.
        retry_after: value of the header, or an empty text.
        lag: seconds in which the client process did not run.
    """

    kind: str
    begun: float
    seconds: float
    status: int
    code: str
    retry_after: str
    lag: float

    @property
    def ended(self) -> float:
        return self.begun + self.seconds + self.lag


def violations(
    outcomes: Iterable[Outcome], *, grace: float, may_be_gone: bool = False
) -> list[str]:
    """Return broken promises: answers that are late, missing or of an unexpected status.

    Args:
        outcomes: of all requests.
        grace: seconds that each deadline may be exceeded.
        may_be_gone: whether acknowledged products and, for a moment, accounts may be missing, as
            during a restore, which empties and refills one table after the other.
    """
    found = []
    for each in outcomes:
        kind = KINDS[each.kind]
        what = f"{each.kind} {each.status} {each.code} after {each.seconds:.2f} s"
        if each.status == LOST:
            found.append(f"no answer: {what}")
        elif each.status == 503:
            if not each.retry_after.isdecimal() or int(each.retry_after) < 1:
                found.append(f"no Retry-After: {what}")
        elif each.status not in kind.statuses and not (may_be_gone and each.status in _WHILE_GONE):
            found.append(f"status: {what}")
        if each.seconds > kind.seconds + grace:
            found.append(f"late: {what}")
    return found


def summary(found: Sequence[str]) -> str:
    """Return a summary of violations: counts by kind, and the first 8."""
    counts = Counter(each.partition(":")[0] for each in found)
    return f"{dict(counts)} {list(found[:8])}"


def slowest(outcomes: Iterable[Outcome], kinds: frozenset[str]) -> float:
    """Return the longest duration in seconds among some kinds; 0 without requests."""
    return max((each.seconds for each in outcomes if each.kind in kinds), default=0.0)


def first_success(outcomes: Iterable[Outcome], kinds: frozenset[str], since: float) -> float:
    """Return the seconds from ``since`` to the first success of a request begun after it."""
    ends = [
        each.ended
        for each in outcomes
        if each.kind in kinds and each.begun >= since and 200 <= each.status < 300
    ]
    return min(ends, default=float("inf")) - since
