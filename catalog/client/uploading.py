"""Uploads of any number of products, in requests of a thousand."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Literal

import httpx

from catalog.client.errors import CatalogError
from catalog.client.models import UploadLine, UploadReport
from catalog.client.responses import contents

UPLOAD_LINES = 1000
UPLOAD_BYTES = 1024 * 1024
"""Products in one request of an upload, and the size at which it is sent in any case."""

UploadMode = Literal["create", "upsert"]


class UploadInterrupted(CatalogError):
    """An upload ended before its end.

    Attributes:
        report: what is known to have happened.
        lines: products that it counts; the next ones may or may not have been written.
    """

    def __init__(self, report: UploadReport, lines: int) -> None:
        super().__init__(f"The upload was interrupted after {lines} products.")
        self.report = report
        self.lines = lines


async def upload(
    send: Callable[..., Awaitable[httpx.Response]],
    products: Iterable[UploadLine] | AsyncIterable[UploadLine],
    *,
    mode: UploadMode,
    progress: Callable[[UploadReport], object] | None,
) -> UploadReport:
    """Send products, and return what became of them; see ``AsyncClient.upload``.

    Args:
        send: sends one request, as ``AsyncClient.send`` does.
        products: the products.
        mode: whether to create, or to change what is there.
        progress: called with the report so far after each request.

    Raises:
        UploadInterrupted: the outcome of a request is unknown, or the service refused it.
        Exception: whatever ``products`` or ``progress`` raised, with a note of what was done.
    """
    report, lines = UploadReport(), 0
    try:
        async for chunk, count, has_names in _chunks(products):
            try:
                answer = await send(
                    "POST",
                    "/api/products",
                    # A product without a name of its own would be created once more.
                    is_repeatable=mode == "upsert" and has_names,
                    content=chunk,
                    params={"mode": mode} if mode == "upsert" else {},
                    headers={"Content-Type": "application/x-ndjson"},
                )
                outcome = contents(answer, UploadReport.from_json)
            except CatalogError as error:
                raise UploadInterrupted(report, lines) from error
            report = report.plus(outcome, first_line=lines)
            lines += count
            if progress is not None:
                progress(report)
    except UploadInterrupted:
        raise
    except Exception as error:
        # The caller's own: it keeps its type, because it is no error of the service.
        error.add_note(
            f"The upload ended after {lines} products: {report.created} created,"
            f" {report.updated} updated, {report.unchanged} unchanged, {report.failed} failed."
        )
        raise
    return report


async def _chunks(
    products: Iterable[UploadLine] | AsyncIterable[UploadLine],
) -> AsyncIterator[tuple[bytes, int, bool]]:
    """Yield bodies of an upload, the products in each, and whether all have an id or a key."""
    lines: list[bytes] = []
    size, has_names = 0, True
    async for product in _each(products):
        line = json.dumps(product, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        lines.append(line)
        size += len(line)
        has_names = has_names and (product.get("id") or product.get("key")) is not None
        if len(lines) == UPLOAD_LINES or size >= UPLOAD_BYTES:
            yield b"".join(lines), len(lines), has_names
            lines, size, has_names = [], 0, True
    if lines:
        yield b"".join(lines), len(lines), has_names


async def _each(
    products: Iterable[UploadLine] | AsyncIterable[UploadLine],
) -> AsyncIterator[UploadLine]:
    if isinstance(products, AsyncIterable):
        async for product in products:
            yield product
    else:
        for product in products:
            yield product
