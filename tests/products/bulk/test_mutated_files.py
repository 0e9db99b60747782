"""Reports of imports account for every record that was sent, whatever became of the file."""

from collections.abc import AsyncIterator

from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import LinesInvalid
from catalog.products.bulk.chunks import ImportResult, read_chunks
from catalog.products.bulk.formats import FORMATS, ReaderOptions
from tests.products.bulk.mutations import MutatedFile


async def report_on(file: MutatedFile, size: int) -> ImportResult | None:
    """Return the report on a file that arrives in pieces; None if it is refused as a whole."""
    media_type, _, charset = file.media_type.partition("; charset=")
    form = FORMATS[media_type]

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(file.text), size):
            yield file.text[start : start + size]

    imported = ImportResult()
    reader = form.reader(ReaderOptions(form.charsets[charset or "utf-8"]))
    try:
        async for chunk in read_chunks(pieces(), reader, imported):
            imported.created += len(chunk.parsed_products)
    except LinesInvalid:
        return None
    return imported


class TestReport:
    @settings(deadline=None)
    @given(seed=st.integers(0, 2**63), size=st.sampled_from([7, 1000, 1 << 20]))
    async def test_created_and_failed_records_are_all_that_were_sent(
        self, seed: int, size: int
    ) -> None:
        file = MutatedFile(seed)

        report = await report_on(file, size)

        if report is not None:
            assert report.created + report.failed == file.sent, file.text
