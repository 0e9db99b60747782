"""Bulk imports, sent over HTTP."""

from tests.support import Caller, Response

NDJSON = "application/x-ndjson"


def lines_of(count: int, *, first: int = 0) -> bytes:
    """Return this many products as NDJSON."""
    return b"".join(b'{"name":"n%d","price":%d.5}\n' % (n, n) for n in range(first, first + count))


async def send(
    caller: Caller, body: bytes, query: str = "", *, media_type: str = NDJSON, **headers: str
) -> Response:
    headers = {"Content-Type": media_type, **headers}
    return await caller.post(f"/api/products{query}", data=body, headers=headers)
