"""The dashboard: valid for Grafana, and complete."""

import re

import yaml

from tests.monitoring.expressions import DASHBOARD, ROOT, dashboard, of_dashboard, panels, rules
from tests.monitoring.promql import read

PROVISIONING = ROOT / "docker" / "grafana" / "provisioning"


class TestDashboard:
    def test_dashboard_has_a_fixed_uid(self) -> None:
        assert dashboard()["uid"] == "catalog"
        assert "id" not in dashboard()

    def test_panels_query_the_selected_data_source(self) -> None:
        for panel in panels():
            for asked in (panel, *panel["targets"]):
                assert asked["datasource"] == {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}

    def test_panels_have_unique_ids_and_do_not_overlap(self) -> None:
        rows = dashboard()["panels"]
        numbers = [panel["id"] for panel in (*rows, *panels()) if panel["type"] != "row"]
        taken: set[tuple[int, int]] = set()

        for panel in rows:
            at = panel["gridPos"]
            columns = range(at["x"], at["x"] + at["w"])
            cells = {(x, y) for x in columns for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24
            taken |= cells
        assert len({panel["id"] for panel in rows}) == len(rows)
        assert set(numbers) >= {panel["id"] for panel in panels()}
        assert len([*panels()]) == len({panel["id"] for panel in panels()})

    def test_used_variables_are_declared(self) -> None:
        declared = {variable["name"] for variable in dashboard()["templating"]["list"]}
        used = set(re.findall(r"\$\{?([A-Za-z]\w*)", DASHBOARD.read_text()))

        assert used == declared

    def test_documented_metrics_are_all_shown(self) -> None:
        text = (ROOT / "docs" / "monitoring.md").read_text()
        documented = set(re.findall(r"^\| `(catalog_\w+)` \|", text, flags=re.MULTILINE))
        # A recorded series stands for the metrics that it is computed from.
        recorded = [rule for rule in rules() if "record" in rule]
        made_of = {rule["record"]: read(rule["expr"]).metrics for rule in recorded}
        shown = set[str]().union(*(read(each.text).metrics for each in of_dashboard()))
        shown |= set[str]().union(*(made_of.get(name, set()) for name in shown))

        assert documented <= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}


class TestProvisioning:
    def test_data_source_has_the_uid_that_the_dashboard_selects(self) -> None:
        (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yaml").read_text())[
            "datasources"
        ]
        chosen = {each["name"]: each for each in dashboard()["templating"]["list"]}

        assert source["type"] == "prometheus"
        assert chosen["DS_PROMETHEUS"]["current"]["value"] == source["uid"]

    def test_data_source_interval_equals_the_scrape_interval(self) -> None:
        (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yaml").read_text())[
            "datasources"
        ]
        scraped = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())

        assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
