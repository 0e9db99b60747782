"""Decorators by which views declare what the OpenAPI document says of them."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from catalog.errors import CatalogError

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "catalog_openapi"


class Marks(NamedTuple):
    """Declarations of a view.

    Attributes:
        refuses: its own errors.
        revalidates: whether its responses have an ``ETag`` and can be 304.
        also_takes: media types of its request body besides JSON.
        may_lack_body: whether its request body is optional.
        answers_nothing: whether it responds with 204.
    """

    refuses: tuple[type[CatalogError], ...] = ()
    revalidates: bool = False
    also_takes: tuple[str, ...] = ()
    may_lack_body: bool = False
    answers_nothing: bool = False


def marks_of(view: object) -> Marks:
    """Return the declarations of a view."""
    marks: Marks = getattr(view, _ATTRIBUTE, Marks())
    return marks


def refuses(*kinds: type[CatalogError]) -> Callable[[F], F]:
    """Document a handler's own errors, besides those that every handler shares.

    Decorators of the same handler add up.
    """
    return lambda view: _marked(view, refuses=(*kinds, *marks_of(view).refuses))


def revalidates(view: F) -> F:
    """Document that a handler's responses have an ``ETag`` and can be 304."""
    return _marked(view, revalidates=True)


def also_takes(*media_types: str) -> Callable[[F], F]:
    """Document that a handler accepts bodies of these media types besides JSON."""
    return lambda view: _marked(view, also_takes=media_types)


def may_lack_body(view: F) -> F:
    """Document that a handler's request body is optional."""
    return _marked(view, may_lack_body=True)


def answers_nothing(view: F) -> F:
    """Document that a handler responds with 204, without a body."""
    return _marked(view, answers_nothing=True)


def _marked(view: F, **marks: Any) -> F:
    setattr(view, _ATTRIBUTE, marks_of(view)._replace(**marks))
    return view
