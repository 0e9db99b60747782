"""Imports of damaged files: no 5xx, and a report that accounts for every record."""

import pytest
from quart import Quart

from catalog.app import create_app
from catalog.products.bulk.chunks import ImportResult
from catalog.products.bulk.formats import UnreadLines
from catalog.settings import Settings
from tests.faults.figures import Figures
from tests.faults.scale import Scale
from tests.products.bulk.mutations import MutatedFile
from tests.support import Caller

pytestmark = pytest.mark.faults

CONTROL_FILES = 200


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings without rate limits."""
    return settings.model_copy(update={"signup_limit": None, "write_limit": None})


async def wrong_reports(app: Quart, seeds: range) -> tuple[int, list[str]]:
    """Import a file for each seed.

    Returns:
        how many were refused as a whole; and the faults of the other reports.
    """
    caller = await Caller.signed_up(app, "importer")
    refused, created, wrong = 0, 0, []
    for seed in seeds:
        file = MutatedFile(seed)
        answer = await caller.post(
            "/api/products", data=file.text, headers={"Content-Type": file.media_type}
        )
        report = answer.json
        if answer.status_code == 422:
            refused += 1
            if report["created"] or not report["errors"]:
                wrong.append(f"{seed}: {report}")
        elif answer.status_code != 200 or report["created"] + report["failed"] != file.sent:
            wrong.append(f"{seed}: {answer.status_code} {report}, but {file.sent} were sent")
        created += report.get("created", 0)
    page = await caller.get("/api/products/my?total=true&limit=1")
    if page.json["total"] != created:
        wrong.append(f"{page.json['total']} products, but {created} were reported")
    return refused, wrong


class TestMutatedFiles:
    async def test_report_accounts_for_every_record(
        self, settings: Settings, scale: Scale, figures: Figures, request: pytest.FixtureRequest
    ) -> None:
        engine = request.node.callspec.params["engine"]
        app = create_app(settings)
        async with app.test_app():
            refused, wrong = await wrong_reports(app, range(scale.mutated_files))

        check = f"mutated files ({engine})"
        figures.add(check, "imported", scale.mutated_files)
        figures.add(check, "of them refused as a whole", refused)
        figures.add(check, "5xx or wrong reports", len(wrong), limit="0")
        assert wrong == []
        assert refused < scale.mutated_files / 2

    async def test_understated_report_is_detected(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Negative control: lines that were not read count as one record."""

        def add_as_one(imported: ImportResult, lines: UnreadLines) -> None:
            imported.add_faults([lines.fault])

        monkeypatch.setattr(ImportResult, "add_unread", add_as_one)
        app = create_app(settings)
        async with app.test_app():
            _, wrong = await wrong_reports(app, range(CONTROL_FILES))

        assert wrong
