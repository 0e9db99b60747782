"""JSON responses, serialized once by pydantic or from bytes that are JSON already."""

from collections.abc import Mapping

from pydantic import BaseModel
from quart import Response, request

from catalog.http.context import running


def json_response(
    body: bytes | BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response from a model, or from bytes that are JSON already.

    On a page of products the framework's own serialization costs twenty times as much.

    Raises:
        Overloaded: a large response to a read, while the bound on unsent bytes is reached.
    """
    if isinstance(body, BaseModel):
        body = body.model_dump_json().encode()
    # Only reads are shed: a write is committed, and its client must get the response.
    if request.method == "GET":
        running().buffers.admit(len(body))
    response = Response(body, status=status, content_type="application/json")
    response.headers.update(headers or {})
    return response


def no_content() -> Response:
    """Return an empty 204 response."""
    return Response(b"", status=204)
