"""Measured figures, printed as one table at the end of a run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Attributes:
        check: the check, such as ``database frozen (mariadb)``.
        name: the measured quantity.
        value: with its unit.
        limit: upper or lower bound; empty for informational figures.
    """

    check: str
    name: str
    value: str
    limit: str = ""


class Figures:
    """Collector of the figures of one run."""

    def __init__(self) -> None:
        self._figures: list[Figure] = []

    def add(self, check: str, name: str, value: object, *, unit: str = "", limit: str = "") -> None:
        """Record a value; floats are rounded to three significant digits."""
        text = f"{value:.3g}" if isinstance(value, float) else f"{value}"
        self._figures.append(Figure(check, name, f"{text} {unit}".strip(), limit))

    def table(self) -> str:
        """Return the figures as a Markdown table; empty without figures."""
        if not self._figures:
            return ""
        lines = ["| check | figure | measured | limit |", "|---|---|---|---|"]
        lines += [f"| {f.check} | {f.name} | {f.value} | {f.limit} |" for f in self._figures]
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the figures as JSON."""
        path.write_text(json.dumps([asdict(each) for each in self._figures], indent=1))
