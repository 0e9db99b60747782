"""Helpers to read ``/metrics`` in tests."""

from functools import cached_property
from typing import Self

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support import Caller


class Numbers:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def families(self) -> list[Metric]:
        """All of it, parsed."""
        return list(text_string_to_metric_families(self._text))

    def _samples(self, name: str) -> list[Sample]:
        """Parse the lines of one name alone: the series grow with each test of the process."""
        begins = f"catalog_{name}{{", f"catalog_{name} "
        lines = [line for line in self._text.split("\n") if line.startswith(begins)]
        parsed = text_string_to_metric_families("\n".join([*lines, ""]))
        return [sample for family in parsed for sample in family.samples]

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
            for sample in self._samples(name)
            if labels.items() <= sample.labels.items()
        )

    def series(self, name: str) -> set[tuple[tuple[str, str], ...]]:
        """Return the labels of all series with a name."""
        return {tuple(sorted(sample.labels.items())) for sample in self._samples(name)}

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
