"""Base class of all errors, and the errors of the fields of a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, TypeVar

E = TypeVar("E", bound=Exception)


@dataclass(frozen=True, slots=True)
class FieldError:
    """Validation error of one part of a request.

    Attributes:
        place: where ``name`` is found: a JSON pointer into the body (RFC 6901), a query parameter
            or a header.
        name: the pointer, or the parameter's or header's name.
        rule: the broken rule, as a predicate: ``must be a number``. Never repeats the value, which
            may be a password.
    """

    place: Literal["pointer", "parameter", "header"]
    name: str
    rule: str

    @property
    def message(self) -> str:
        """A sentence with the field and the rule: ``price must be a number.``."""
        name = self.name
        if self.place == "pointer":
            name = name.removeprefix("/").replace("~1", "/").replace("~0", "~") or "The body"
        return f"{name} {self.rule}."


class CatalogError(Exception):
    """Base of all errors; each concrete subclass has a stable slug.

    Args:
        detail: a sentence about this occurrence, safe to show to any client; by default that of
            the first of ``errors``, or the title.
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
        self.errors = tuple(errors)
        self.detail = detail or (errors[0].message if errors else f"{self.title}.")
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def __copy__(self) -> Self:
        """Copy the error for another request, which may add headers and members of its own."""
        copied = type(self).__new__(type(self), *self.args)
        copied.__dict__.update(self.__dict__)
        copied.headers, copied.members = dict(self.headers), dict(self.members)
        return copied


def caused(error: E, cause: BaseException | None) -> E:
    """Return an error with its cause set, for errors that are passed on instead of raised."""
    error.__cause__ = cause
    return error
