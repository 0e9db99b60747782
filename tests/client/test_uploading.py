"""Uploads of the asynchronous client, against the running service."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from catalog.client import (
    AsyncClient,
    NewProduct,
    UploadInterrupted,
    UploadReport,
    UpsertedProduct,
    uploading,
)
from tests.client.conftest import FaultyTransport, problem
from tests.client.products import lamps, names_of


class TestUpload:
    async def test_upload_accepts_any_iterable_and_reports_progress(
        self, ada: AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploading, "UPLOAD_LINES", 10)
        reports: list[UploadReport] = []

        async def slowly() -> AsyncIterator[NewProduct]:
            for lamp in lamps(7):
                yield lamp

        report = await ada.upload(lamps(25), progress=reports.append)
        await ada.upload(slowly())
        await ada.upload([])

        assert [each.created for each in reports] == [10, 20, 25]
        assert report == reports[-1]
        assert len(await names_of(ada)) == 32

    async def test_faulty_lines_are_reported_by_their_number(
        self, ada: AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploading, "UPLOAD_LINES", 10)
        products = list(lamps(25))
        products[3]["name"] = ""
        products[21]["price"] = -1

        report = await ada.upload(products)

        assert (report.created, report.failed) == (23, 2)
        assert [(each.line, each.pointer) for each in report.errors] == [
            (4, "/name"),
            (22, "/price"),
        ]

    async def test_upsert_is_repeated_until_it_is_done_and_changes_nothing_twice(
        self, ada: AsyncClient, network: FaultyTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploading, "UPLOAD_LINES", 10)

        def keyed(price: float) -> Iterator[UpsertedProduct]:
            return ({"key": f"sku-{n}", "name": f"Lamp {n}", "price": price} for n in range(25))

        network.lost = 1
        first = await ada.upload(keyed(1), mode="upsert")
        again = await ada.upload(keyed(1), mode="upsert")
        raised = await ada.upload(keyed(2), mode="upsert")

        # The answer about the first ten was lost; the repeated request found them in place.
        assert (first.created, first.unchanged, first.failed) == (15, 10, 0)
        assert (again.created, again.updated, again.unchanged) == (0, 0, 25)
        assert (raised.updated, raised.failed) == (25, 0)
        assert len(await names_of(ada)) == 25

    async def test_upsert_of_products_without_names_is_not_repeated(
        self, ada: AsyncClient, network: FaultyTransport
    ) -> None:
        network.lost = 1

        with pytest.raises(UploadInterrupted):
            await ada.upload(lamps(3), mode="upsert")

        assert len(await names_of(ada)) == 3

    async def test_interrupted_upload_reports_the_known_progress(
        self, ada: AsyncClient, network: FaultyTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploading, "UPLOAD_LINES", 10)
        network.answers = [problem(503, "overloaded", {"Retry-After": "0"})]

        def lose(report: UploadReport) -> None:
            network.lost = int(report.created == 20)

        with pytest.raises(UploadInterrupted) as caught:
            await ada.upload(lamps(50), progress=lose)

        assert (caught.value.lines, caught.value.report.created) == (20, 20)
        assert len(await names_of(ada)) == 30

    @pytest.mark.parametrize("product", [None, {"name": "Lamp", "price": float("nan")}])
    async def test_error_of_the_iterable_passes_with_a_note_of_what_was_done(
        self, ada: AsyncClient, monkeypatch: pytest.MonkeyPatch, product: Any
    ) -> None:
        monkeypatch.setattr(uploading, "UPLOAD_LINES", 10)
        reports: list[UploadReport] = []

        def broken() -> Iterator[NewProduct]:
            yield from lamps(25)
            if product is not None:
                yield product
            raise ValueError("Line 26 of the file is damaged.")

        with pytest.raises(ValueError, match=r"damaged|JSON compliant") as caught:
            await ada.upload(broken(), progress=reports.append)

        assert caught.value.__notes__ == [
            "The upload ended after 20 products: 20 created, 0 updated, 0 unchanged, 0 failed."
        ]
        assert reports[-1].created == len(await names_of(ada)) == 20

    async def test_error_of_the_progress_passes_with_a_note_of_what_was_done(
        self, ada: AsyncClient
    ) -> None:
        def fail(_: UploadReport) -> None:
            raise BrokenPipeError

        with pytest.raises(BrokenPipeError) as caught:
            await ada.upload(lamps(2), progress=fail)

        assert "2 created" in caught.value.__notes__[0]
