"""Judgement of a fault of the database by what clients and logs have seen of it."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from tests.faults.clients import Clients
from tests.faults.database_site import WORKERS, Site
from tests.faults.figures import Figures
from tests.faults.outcomes import (
    READ_SECONDS,
    READS,
    WRITE_SECONDS,
    WRITES,
    Outcome,
    first_success,
    slowest,
    summary,
    violations,
)


class Judgement:
    """Observations of clients and logs during one fault.

    Args:
        site: of the service.
        clients: that have finished.
        began: start of the fault, by the monotonic clock.
        ended: return of the database.
        may_be_gone: as in ``violations``.
    """

    def __init__(
        self,
        site: Site,
        clients: Clients,
        began: float,
        ended: float,
        *,
        may_be_gone: bool = False,
    ) -> None:
        self.outcomes = clients.outcomes
        self._scale = site.scale
        self._may_be_gone = may_be_gone
        self.began = began
        self.ended = ended
        self._events = site.service.events
        # Log times are wall-clock times.
        self._offset = time.time() - time.monotonic()

    @property
    def refused(self) -> list[Outcome]:
        return [each for each in self.outcomes if each.status == 503]

    @property
    def violations(self) -> list[str]:
        return violations(
            self.outcomes, grace=self._scale.grace_seconds, may_be_gone=self._may_be_gone
        )

    @property
    def recovery(self) -> float:
        """Seconds from the database's return to the first successful read and write."""
        return max(first_success(self.outcomes, kinds, self.ended) for kinds in (READS, WRITES))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Warnings and errors logged since the start of the fault."""
        return [
            event
            for event in self._events
            if event.get("level") in {"warning", "error", "critical"}
            and _instant(event["timestamp"]) - self._offset >= self.began
        ]

    @property
    def most_lines(self) -> float:
        """Maximum number of log lines, if lines are not written per request."""
        return 20 + 2 * WORKERS * (self.ended - self.began + self._scale.recovery_seconds)

    def note(self, figures: Figures, check: str) -> None:
        answers = Counter(each.status for each in self.outcomes)
        read, write = slowest(self.outcomes, READS), slowest(self.outcomes, WRITES)
        grace, recovery = self._scale.grace_seconds, self._scale.recovery_seconds
        figures.add(check, "answers", dict(sorted(answers.items())), limit="200, 201, 503")
        figures.add(check, "slowest read", read, unit="s", limit=f"{READ_SECONDS + grace} s")
        figures.add(check, "slowest write", write, unit="s", limit=f"{WRITE_SECONDS + grace} s")
        figures.add(check, "recovery", self.recovery, unit="s", limit=f"{recovery} s")
        figures.add(check, "log lines", len(self.lines), limit=f"{self.most_lines:.0f}")

    def check(self, *, cause: str = "", bites: bool = True) -> None:
        """Fail when a promise is broken, listing all violations and not only the first.

        Args:
            cause: a pattern that some log line must match.
            bites: whether the fault must have caused 503 answers.
        """
        wrong = []
        if found := self.violations:
            wrong.append(f"answers: {summary(found)}")
        if self.recovery > self._scale.recovery_seconds:
            wrong.append(f"recovery: {self.recovery:.2f} s")
        if len(self.lines) > self.most_lines:
            wrong.append(f"log: {len(self.lines)} lines for {len(self.refused)} refusals")
        if cause and not any(re.search(cause, str(line)) for line in self.lines):
            wrong.append(f"log: none of {len(self.lines)} lines names the cause: {self.lines[:3]}")
        if bites and not self.refused:
            wrong.append("the fault was none: nothing was refused")
        assert not wrong, "\n".join(wrong)


def _instant(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


class Period:
    """Start and end of a fault, recorded by the check."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ended = self.began

    def is_over(self) -> None:
        self.ended = time.monotonic()


@asynccontextmanager
async def under_load(
    site: Site,
    figures: Figures,
    check: str,
    *,
    cause: str = "",
    bites: bool = True,
    may_be_gone: bool = False,
) -> AsyncIterator[Period]:
    """Judge clients during the fault inside the block and the time of recovery after it."""
    async with site.clients() as clients:
        fault = Period()
        yield fault
        await asyncio.sleep(site.scale.recovery_seconds + site.scale.grace_seconds)
    judgement = Judgement(site, clients, fault.began, fault.ended, may_be_gone=may_be_gone)
    judgement.note(figures, f"{check} ({site.server.name})")
    judgement.check(cause=cause, bites=bites)
