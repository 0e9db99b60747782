"""Adapter between the framework and views that return framework-free replies."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from quart import Blueprint, Quart, Response
from quart.typing import ResponseTypes

from catalog.http.replies.reply import Reply

View = TypeVar("View", bound=Callable[..., Awaitable[Reply]])


class CatalogApp(Quart):
    """The framework's application, whose views and error handlers may return a ``Reply``."""

    async def make_response(self, result: Any) -> ResponseTypes:
        """Convert what a view returned into the framework's response."""
        if isinstance(result, Reply):
            result = _response(result)
        return await super().make_response(result)


def _response(reply: Reply) -> Response:
    # Not empty bytes: the framework would add a length to a response without content.
    response = Response(reply.body or None, status=reply.status, content_type=reply.media_type)
    if reply.media_type is None:
        del response.headers["Content-Type"]
    response.headers.update(reply.headers)
    return response


class _RouteDecorator(Protocol):
    def __call__(self, rule: str) -> Callable[[View], View]: ...


class Routes(Blueprint):
    """A blueprint of views that return a ``Reply``, which the framework's types do not know."""

    get: _RouteDecorator  # type: ignore[assignment]  # a reply is no response there
    post: _RouteDecorator  # type: ignore[assignment]  # a reply is no response there
    patch: _RouteDecorator  # type: ignore[assignment]  # a reply is no response there
    delete: _RouteDecorator  # type: ignore[assignment]  # a reply is no response there
