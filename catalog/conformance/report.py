"""Reports of a run: for people, and as JUnit XML for CI systems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree as ET

from catalog.conformance.rule import Rule


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one rule.

    Attributes:
        fault: how it is broken; empty if it is kept.
        seconds: how long the check took.
    """

    rule: Rule
    fault: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """Outcomes of a run.

    Attributes:
        url: the deployment.
        outcomes: one for each rule that was checked, in their order.
        left: accounts that could not be deleted.
    """

    url: str
    outcomes: Sequence[Outcome]
    left: Sequence[str] = ()

    @property
    def broken(self) -> list[Outcome]:
        """Outcomes of the rules that are broken."""
        return [outcome for outcome in self.outcomes if outcome.fault]

    @property
    def is_green(self) -> bool:
        """Whether all rules are kept and nothing was left behind."""
        return not self.broken and not self.left

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        for section, outcomes in groupby(self.outcomes, key=lambda each: each.rule.section):
            yield section
            for outcome in outcomes:
                yield f"  {'BROKEN' if outcome.fault else 'kept  '} {outcome.rule.sentence}"
                if outcome.fault:
                    yield f"         {outcome.rule.name}: {outcome.fault}"
        seconds = sum(outcome.seconds for outcome in self.outcomes)
        kept = len(self.outcomes) - len(self.broken)
        yield f"{self.url}: {kept} of {len(self.outcomes)} rules kept, in {seconds:.1f} s"
        for name in self.left:
            yield f"The account {name} could not be deleted."

    def junit(self) -> bytes:
        """Return the report as JUnit XML."""
        suite = ET.Element("testsuite", name="catalog conformance", hostname=self.url)
        suite.set("tests", str(len(self.outcomes)))
        suite.set("failures", str(len(self.broken)))
        suite.set("errors", "0")
        suite.set("time", f"{sum(outcome.seconds for outcome in self.outcomes):.3f}")
        for outcome in self.outcomes:
            case = ET.SubElement(suite, "testcase", name=outcome.rule.sentence)
            case.set("classname", f"{outcome.rule.section}.{outcome.rule.name}")
            case.set("time", f"{outcome.seconds:.3f}")
            if outcome.fault:
                message = _printable(outcome.fault)
                ET.SubElement(case, "failure", message=message).text = message
        root = ET.Element("testsuites")
        root.append(suite)
        text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
        return text


def _printable(text: str) -> str:
    # XML 1.0 has no control characters, not even escaped.
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
