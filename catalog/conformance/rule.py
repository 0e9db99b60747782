"""Rules of the contract: functions that raise ``Broken`` where a deployment does not keep them."""

from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from typing import Any

import httpx

from catalog.conformance.site import Site

Check = Callable[[Site], Awaitable[None]]


class Broken(Exception):
    """A rule is broken; the message says what was expected and what came instead."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the contract.

    Attributes:
        section: its part of the contract.
        name: the name of its check.
        sentence: what it says.
        check: raises ``Broken`` if it is not kept.
    """

    section: str
    name: str
    sentence: str
    check: Check


class Section:
    """Rules of one part of the contract, in their order.

    Args:
        name: the part's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rules: list[Rule] = []

    def rule(self, sentence: str) -> Callable[[Check], Check]:
        """Register a check.

        Args:
            sentence: what the rule says.
        """

        def register(check: Check) -> Check:
            self.rules.append(Rule(self.name, check.__name__, sentence, check))
            return check

        return register


def expect(kept: object, said: str) -> None:
    """Require a condition.

    Args:
        kept: whether it holds.
        said: what is expected, and what came instead.

    Raises:
        Broken: it does not hold.
    """
    if not kept:
        raise Broken(said)


def expect_equal(found: object, expected: object, what: str) -> None:
    """Require a value."""
    expect(found == expected, f"{what} is {_short(found)} instead of {_short(expected)}")


def expect_status(answer: httpx.Response, *statuses: int) -> Any:
    """Require one of some statuses, and return the JSON of the body, if it is any."""
    request = f"{answer.request.method} {answer.request.url.raw_path.decode()[:120]}"
    expected = " or ".join(map(str, statuses))
    expect(
        answer.status_code in statuses,
        f"{request} answers {answer.status_code} instead of {expected}: {answer.text[:200]}",
    )
    media_type = answer.headers.get("content-type", "")
    return answer.json() if media_type.startswith("application/json") else None


def expect_problem(
    answer: httpx.Response, status: int | Container[int], code: str | None = None
) -> dict[str, Any]:
    """Require a problem (RFC 9457) with the members that every one has, and return it."""
    request = f"{answer.request.method} {answer.request.url.raw_path.decode()[:120]}"
    expected = {status} if isinstance(status, int) else status
    expect(
        answer.status_code in expected,
        f"{request} answers {answer.status_code} instead of {status}: {answer.text[:200]}",
    )
    media_type = answer.headers.get("content-type", "")
    expect(media_type == "application/problem+json", f"{request}: the error is {media_type!r}")
    problem: dict[str, Any] = answer.json()
    missing = {"type", "title", "status", "detail", "code", "request_id"} - problem.keys()
    expect(not missing, f"{request}: the problem lacks {sorted(missing)}")
    expect_equal(problem["status"], answer.status_code, f"{request}: the problem's status")
    if code is not None:
        expect_equal(problem["code"], code, f"{request}: the problem's code")
    if answer.status_code == 401:
        challenge = answer.headers.get("www-authenticate", "")
        expect(challenge.startswith("Bearer"), f"{request}: 401 with the challenge {challenge!r}")
    return problem


def faulty_fields(problem: dict[str, Any]) -> list[str]:
    """Return the places of a problem's field errors."""
    places = ("pointer", "parameter", "header")
    return [
        str(each[place]) for each in problem.get("errors", ()) for place in places if place in each
    ]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
