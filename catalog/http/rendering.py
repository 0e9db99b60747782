"""JSON out: bytes made once, by the fastest hands at hand."""

from collections.abc import Mapping

from pydantic import BaseModel
from quart import Response, request

from catalog.http.context import running


def json_response(
    body: bytes | BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON response from a model, or from bytes that are JSON already.

    The framework's own way from dictionaries costs twenty times as much on a page of products.

    Raises:
        Overloaded: it answers a read, is large, and too much waits for clients already.
    """
    if isinstance(body, BaseModel):
        body = body.model_dump_json().encode()
    # The write is done, and its client must get the answer.
    if request.method == "GET":
        running().buffers.admit(len(body))
    response = Response(body, status=status, content_type="application/json")
    response.headers.update(headers or {})
    return response


def no_content() -> Response:
    """An answer that says by its status that it is done."""
    return Response(b"", status=204)
