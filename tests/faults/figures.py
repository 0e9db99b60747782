"""Figures that the checks measure, printed as one table at the end of a run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Attributes:
        check: what was put to the test, such as ``database frozen (mariadb)``.
        name: what was measured.
        value: with its unit.
        limit: what it must not exceed or fall below; empty where it only informs.
    """

    check: str
    name: str
    value: str
    limit: str = ""


class Figures:
    """Collects figures; one for each run."""

    def __init__(self) -> None:
        self._figures: list[Figure] = []

    def add(self, check: str, name: str, value: object, *, unit: str = "", limit: str = "") -> None:
        """Note a value; floats are rounded to three digits."""
        text = f"{value:.3g}" if isinstance(value, float) else f"{value}"
        self._figures.append(Figure(check, name, f"{text} {unit}".strip(), limit))

    def table(self) -> str:
        """Return all of them as a Markdown table; empty if there are none."""
        if not self._figures:
            return ""
        lines = ["| check | figure | measured | limit |", "|---|---|---|---|"]
        lines += [f"| {f.check} | {f.name} | {f.value} | {f.limit} |" for f in self._figures]
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_text(json.dumps([asdict(each) for each in self._figures], indent=1))
