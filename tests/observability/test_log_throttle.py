"""Throttled log lines: the first of a kind is logged at once, later ones are counted."""

from catalog.observability.log_throttle import MAX_KINDS, LogThrottle


class Clock:
    """Clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_first_of_each_kind_is_logged() -> None:
    throttle = LogThrottle(5.0, Clock())

    assert [throttle.admit(kind) for kind in ("reset", "frozen", "reset")] == [0, 0, None]


def test_suppressed_lines_are_counted_in_the_next() -> None:
    clock = Clock()
    throttle = LogThrottle(5.0, clock)
    admitted = []
    for seconds in range(11):
        clock.now = 100.0 + seconds
        admitted.append(throttle.admit("reset"))

    assert admitted == [0, *[None] * 4, 4, *[None] * 4, 4]


def test_number_of_kinds_is_bounded() -> None:
    clock = Clock()
    throttle = LogThrottle(5.0, clock)
    for number in range(MAX_KINDS + 1):
        clock.now += 0.001
        throttle.admit(number)

    assert throttle.admit(MAX_KINDS) is None
    assert throttle.admit(0) == 0
