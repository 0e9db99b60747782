"""The rules: valid, and each alert fires when it should and links to its runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.expressions import (
    DOCS,
    PROMETHEUS,
    RULES,
    TARGET,
    TESTS,
    Found,
    alerts,
    exposed,
    of_dashboard,
    of_rules,
    rules,
)
from tests.monitoring.promql import Selector, read

EXPRESSIONS = [*of_rules(), *of_dashboard()]
ALERTS = {rule["alert"]: rule for rule in alerts()}


def cases() -> list[dict[str, Any]]:
    """Return the expectations of all promtool rule tests."""
    files = [yaml.safe_load(file.read_text()) for file in sorted(TESTS.iterdir())]
    groups = [group for file in files for group in file["tests"]]
    return [case for group in groups for case in group.get("alert_rule_test", [])]


class TestPromtool:
    def test_configuration_and_rules_are_valid(self, promtool: Path) -> None:
        # It checks the rule files, too.
        result = subprocess.run(
            [promtool, "check", "config", PROMETHEUS / "prometheus.yml"],
            check=False,
            capture_output=True,
            text=True,
        )

        assert result.returncode == 0, result.stdout + result.stderr

    def test_alerts_fire_only_when_they_should(self, promtool: Path) -> None:
        files = sorted(TESTS.iterdir())

        result = subprocess.run(
            [promtool, "test", "rules", *files], check=False, capture_output=True, text=True
        )

        assert result.returncode == 0, result.stdout + result.stderr

    def test_alert_that_never_fires_fails_its_test(self, promtool: Path, tmp_path: Path) -> None:
        text = (RULES / "alerts.yml").read_text()
        (tmp_path / "rules").mkdir()
        (tmp_path / "tests").mkdir()
        broken = text.replace("catalog_refresh_reuse_total[15m])) > 0", "up[15m])) > 0")
        assert broken != text
        (tmp_path / "rules" / "alerts.yml").write_text(broken)
        test = tmp_path / "tests" / "security.yml"
        test.write_text((TESTS / "security.yml").read_text())

        result = subprocess.run([promtool, "test", "rules", test], check=False, capture_output=True)

        assert result.returncode != 0

    def test_dashboard_expressions_are_valid(self, promtool: Path, tmp_path: Path) -> None:
        asked = [{"record": f"a{n}", "expr": each.text} for n, each in enumerate(of_dashboard())]
        file = tmp_path / "asked.yml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))

        result = subprocess.run(
            [promtool, "check", "rules", file], check=False, capture_output=True, text=True
        )

        assert result.returncode == 0, result.stdout + result.stderr


class TestNames:
    @pytest.mark.parametrize("found", EXPRESSIONS, ids=str)
    def test_expression_uses_exposed_metrics_and_labels(self, found: Found) -> None:
        expression = read(found.text)
        known = exposed()

        assert expression.metrics
        assert expression.metrics <= set(known)
        for selector in expression.selectors:
            asked = {label for label, _, _ in selector.matchers}
            assert asked <= known[selector.metric], selector
        labels = set[str]().union(*(known[metric] for metric in expression.metrics))
        assert expression.groupings <= labels

    def test_recorded_series_has_the_labels_of_its_name(self) -> None:
        for rule in rules():
            if "record" in rule:
                level = set(rule["record"].split(":")[0].split("_"))
                assert read(rule["expr"]).groupings - {"le"} == level, rule["record"]

    def test_annotations_use_labels_of_their_alert(self) -> None:
        for name, rule in ALERTS.items():
            texts = " ".join(rule["annotations"].values())
            expression = read(rule["expr"])
            own = expression.groupings | set(rule["labels"])
            if not expression.groupings:
                own |= set[str]().union(*(exposed()[metric] for metric in expression.metrics))
            assert set(re.findall(r"\$labels\.(\w+)", texts)) <= own | TARGET, name


class TestAlerts:
    @pytest.mark.parametrize("name", ALERTS)
    def test_alert_has_a_severity_and_a_runbook(self, name: str) -> None:
        rule = ALERTS[name]

        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
        assert rule["annotations"]["runbook_url"] == f"docs/monitoring.md#{name.lower()}"

    @pytest.mark.parametrize("name", ALERTS)
    def test_alert_is_tested_firing_and_silent(self, name: str) -> None:
        fires = [bool(case.get("exp_alerts")) for case in cases() if case["alertname"] == name]

        assert set(fires) == {True, False}

    def test_documented_alerts_are_those_that_exist(self) -> None:
        text = DOCS.read_text()
        part = text.partition("\n## Alerts\n")[2].partition("\n## ")[0]
        explained = re.findall(r"^### (\w+)\n\n`(\w+)`", part, flags=re.MULTILINE)

        assert explained == [(name, rule["labels"]["severity"]) for name, rule in ALERTS.items()]


class TestReading:
    def test_reader_finds_metrics_labels_and_groupings(self) -> None:
        text = """
          sum by (job, le) (rate(a_bucket{x="1, }", y!~"2|3"}[5m] offset 1h))  # not_this
          / on (job) group_left (z) topk(3, max without (k) (b)) > bool 0.5e3
          unless absent(job:c:rate5m{}) == +Inf
        """

        expression = read(text)

        assert expression.selectors == (
            Selector("a_bucket", (("x", "=", "1, }"), ("y", "!~", "2|3"))),
            Selector("b"),
            Selector("job:c:rate5m"),
        )
        assert expression.groupings == {"job", "le", "z", "k"}
