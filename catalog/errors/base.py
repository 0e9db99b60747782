"""Base class of all errors, and the errors of the fields of a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

E = TypeVar("E", bound=Exception)


@dataclass(frozen=True, slots=True)
class FieldError:
    """Validation error of one part of a request.

    Attributes:
        place: where ``name`` is found: a JSON pointer into the body (RFC 6901), a query parameter
            or a header.
        name: the pointer, or the parameter's or header's name.
        message: a human-readable sentence; never repeats the value, which may be a password.
    """

    place: Literal["pointer", "parameter", "header"]
    name: str
    message: str


class CatalogError(Exception):
    """Base of all errors; each concrete subclass has a stable slug.

    Args:
        detail: a sentence about this occurrence, safe to show to any client.
        errors: validation errors by field.
        headers: headers that the response must carry, such as ``Allow``.
        members: further members of its problem details (RFC 9457, section 3.2).
    """

    slug: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or f"{self.title}."
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members = dict(members or {})


def caused(error: E, cause: BaseException | None) -> E:
    """Return an error with its cause set, for errors that are passed on instead of raised."""
    error.__cause__ = cause
    return error
