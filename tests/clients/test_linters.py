"""Linters of OpenAPI documents find nothing."""

import json
from pathlib import Path

from tests.clients.tools import NODE, run, run_node


class TestRedocly:
    async def test_recommended_rules_find_no_errors(self, folder: Path) -> None:
        script = "@redocly/cli/bin/cli.js"

        output = await run_node(
            folder, script, *("lint", "--extends=recommended", "--format=json", "openapi.json")
        )

        report = json.loads(output[output.index("{") : output.rindex("}") + 1])
        assert report["totals"]["errors"] == 0
        assert report["totals"]["warnings"] == 0, report["problems"]


class TestSpectral:
    RULES = "extends: [spectral:oas]\n"
    SCRIPT = "node_modules/@stoplight/spectral-cli/dist/index.js"

    async def test_rules_for_openapi_find_nothing(self, folder: Path) -> None:
        (folder / "rules.yaml").write_text(self.RULES)

        code, output = await run(
            *(folder, NODE, self.SCRIPT, "lint", "--fail-severity=hint", "--format=json"),
            *("--ruleset=rules.yaml", "openapi.json"),
        )

        assert code == 0, output

    async def test_operation_without_description_is_found(self, folder: Path) -> None:
        (folder / "rules.yaml").write_text(self.RULES)
        document = json.loads((folder / "openapi.json").read_bytes())
        document["paths"]["/livez"]["get"]["description"] = ""
        (folder / "openapi.json").write_text(json.dumps(document))

        code, output = await run(
            *(folder, NODE, self.SCRIPT, "lint", "--fail-severity=hint", "--format=json"),
            *("--ruleset=rules.yaml", "openapi.json"),
        )

        assert code != 0
        assert "operation-description" in output
