"""What ``/metrics`` tells, as tests look at it."""

from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from tests.support import Caller


class Numbers:
    """The samples of one answer."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self._samples = [sample for family in self.families for sample in family.samples]

    @classmethod
    async def of(cls, caller: Caller) -> Self:
        """Those of an app without a server between."""
        answer = await caller.get("/metrics")
        assert answer.status_code == 200
        return cls(answer.body.decode())

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of that name with those labels; 0 if there is none."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == f"catalog_{name}" and labels.items() <= sample.labels.items()
        )

    def series(self, name: str) -> set[tuple[tuple[str, str], ...]]:
        """The labels of all series of that name."""
        return {
            tuple(sorted(sample.labels.items()))
            for sample in self._samples
            if sample.name == f"catalog_{name}"
        }

    def labels_of(self, name: str) -> set[str]:
        """The names of the labels that samples of a family have."""
        return {
            label
            for family in self.families
            if family.name == name
            for sample in family.samples
            for label in sample.labels
        } - {"le"}


class Change:
    """By how much numbers are more than they were."""

    def __init__(self, caller: Caller, before: Numbers) -> None:
        self._caller = caller
        self._before = before

    @classmethod
    async def since_now(cls, caller: Caller) -> Self:
        return cls(caller, await Numbers.of(caller))

    async def of(self, name: str, **labels: str) -> float:
        """How much more one is."""
        after = await Numbers.of(self._caller)
        return after.total(name, **labels) - self._before.total(name, **labels)
