"""The shipped rules and dashboard for Prometheus and Grafana, parsed."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
RULES = PROMETHEUS / "rules"
TESTS = PROMETHEUS / "tests"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "catalog.json"
DOCS = ROOT / "docs" / "monitoring.md"

# Labels that Prometheus adds to each target, and its own metrics.
TARGET = {"job", "instance"}
OF_PROMETHEUS = {
    "up": TARGET,
    "ALERTS": {*TARGET, "alertname", "alertstate", "severity"},
    "prometheus_rule_evaluation_failures_total": {*TARGET, "rule_group"},
}

# Grafana's variables, filled in for a short time range and all instances and routes.
VARIABLES = {"$__rate_interval": "1m", "$__range": "5m", "$instance": ".*", "$route": ".*"}


class Found(NamedTuple):
    """An expression and its location."""

    place: str
    text: str

    def __str__(self) -> str:
        return self.place


def rules() -> list[dict[str, Any]]:
    """Return all rules, recording rules first."""
    files = [RULES / "recording.yml", RULES / "alerts.yml"]
    assert sorted(files) == sorted(RULES.iterdir())
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def of_rules() -> list[Found]:
    return [Found(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]


@cache
def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return content


def panels() -> Iterator[dict[str, Any]]:
    """Yield all panels except rows, those in collapsed rows included."""
    for panel in dashboard()["panels"]:
        yield from panel.get("panels", []) if panel["type"] == "row" else [panel]


def of_dashboard() -> list[Found]:
    """Return the expressions of all panels, with variables filled in as by Grafana."""
    found = []
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for variable, value in VARIABLES.items():
                text = text.replace(variable, value)
            found.append(Found(f"{panel['title']} ({target['refId']})", text))
    return found


@cache
def exposed() -> dict[str, set[str]]:
    """Return all series and their labels: the documented ones, the recorded ones, Prometheus' own.

    That the documentation is right is tested elsewhere.
    """
    series = {name: set(labels) for name, labels in OF_PROMETHEUS.items()}
    row = r"^\| `(catalog_\w+)` \| (\w+) \| (none|`[^|]*) \|"
    documented = re.findall(row, DOCS.read_text(), flags=re.MULTILINE)
    assert len(documented) > 15, "docs/monitoring.md has another table than this reads"
    for name, kind, cell in documented:
        labels = {*re.findall(r"`(\w+)`", cell), *TARGET}
        if kind == "histogram":
            series |= {f"{name}_sum": labels, f"{name}_count": labels}
            series[f"{name}_bucket"] = {*labels, "le"}
        else:
            series[name] = labels
    for rule in rules():
        if "record" in rule:
            series[rule["record"]] = set(rule["record"].split(":")[0].split("_"))
    return series
