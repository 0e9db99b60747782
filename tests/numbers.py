"""Helpers to read ``/metrics`` in tests."""

from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from tests.support import Caller


class Numbers:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self._samples = [sample for family in self.families for sample in family.samples]

    @classmethod
    async def of(cls, caller: Caller) -> Self:
        """Scrape an app in-process."""
        answer = await caller.get("/metrics")
        assert answer.status_code == 200
        return cls(answer.body.decode())

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all series with a name and labels; 0 if there is none."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == f"catalog_{name}" and labels.items() <= sample.labels.items()
        )

    def series(self, name: str) -> set[tuple[tuple[str, str], ...]]:
        """Return the labels of all series with a name."""
        return {
            tuple(sorted(sample.labels.items()))
            for sample in self._samples
            if sample.name == f"catalog_{name}"
        }

    def labels_of(self, name: str) -> set[str]:
        """Return the label names in a family's samples."""
        return {
            label
            for family in self.families
            if family.name == name
            for sample in family.samples
            for label in sample.labels
        } - {"le"}


class Change:
    """The increase of numbers since a first scrape."""

    def __init__(self, caller: Caller, before: Numbers) -> None:
        self._caller = caller
        self._before = before

    @classmethod
    async def since_now(cls, caller: Caller) -> Self:
        return cls(caller, await Numbers.of(caller))

    async def of(self, name: str, **labels: str) -> float:
        """Return the increase of one number."""
        after = await Numbers.of(self._caller)
        return after.total(name, **labels) - self._before.total(name, **labels)
