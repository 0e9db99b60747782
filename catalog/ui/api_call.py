"""Calls of the API's views from within the process.

The pages show what the API answers: a page is made from the very reply that a program would get.
"""

from collections.abc import Awaitable, Callable, Mapping

from catalog.http.replies.negotiation import JSON
from catalog.http.replies.reply import Reply
from catalog.http.request import (
    Request,
    changed,
    current_request,
    reset_current_request,
    set_current_request,
)


async def call_view(
    endpoint: str,
    *,
    method: str = "GET",
    query_string: bytes = b"",
    body: bytes = b"",
    token: str | None = None,
    arguments: Mapping[str, int] | None = None,
) -> Reply:
    """Return a view's reply to a request of the current client.

    Limits count it for the same client, and the reply's rate limit headers are kept.

    Args:
        endpoint: the framework's name of the view.
        method: the request's method.
        query_string: the request's query.
        body: the request's body, which is JSON.
        token: sent as ``Authorization: Bearer``.
        arguments: those of the route.

    Raises:
        CatalogError: the view refuses.
    """
    outer = current_request()
    fields = [(b"accept", JSON.encode())]
    if body:
        fields.append((b"content-type", JSON.encode()))
    if token is not None:
        fields.append((b"authorization", b"Bearer " + token.encode()))
    if agent := outer.fields.get(b"user-agent"):
        fields.append((b"user-agent", agent[0]))
    scope = changed(outer.scope, method=method, query_string=query_string, headers=fields)
    inner = Request(outer.app, scope, outer.request_id)
    inner.body = body
    previous = set_current_request(inner)
    try:
        view: Callable[..., Awaitable[Reply]] = outer.app.view_functions[endpoint]  # type: ignore[assignment]  # a reply is no response there
        return await view(**(arguments or {}))
    finally:
        reset_current_request(previous)
        outer.limit_headers = inner.limit_headers
