"""Base classes and types of all schemas: strict types, no unknown fields, no NUL."""

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from catalog.db.columns import MAX_ID, rfc3339_text
from catalog.http.pagination import MAX_CURSOR_LENGTH
from catalog.http.replies.problems import MAX_FIELD_ERRORS

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


class _Known(BaseModel):
    """A schema that names the unknown fields it rejects."""

    @model_validator(mode="before")
    @classmethod
    def _keep_few_unknown(cls, data: Any) -> Any:
        """Keep only as many unknown fields as are reported, so that not each becomes an error."""
        if not isinstance(data, dict) or len(data) <= MAX_FIELD_ERRORS:
            return data
        known = {name: data[name] for name in cls.model_fields if name in data}
        unknown = (name for name in data if name not in known)
        return known | {name: data[name] for name in islice(unknown, MAX_FIELD_ERRORS)}


class RequestBody(_Known):
    """A body that a client sends; unknown fields are rejected by name."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class QueryParameters(_Known):
    """The query string of a request; all values arrive as text.

    Attributes:
        lists: names of the parameters that are lists, which arrive as the texts that were sent.
    """

    lists: ClassVar[frozenset[str]] = frozenset()
    model_config = ConfigDict(extra="forbid", frozen=True)


class ResponseBody(BaseModel):
    """A body that the service sends; clients must ignore fields that they do not know."""

    model_config = ConfigDict(frozen=True)


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


def _digits(value: object) -> object:
    """Accept only ASCII digits as a number in a URL: no sign, space, underscore or other script."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 19):
            raise ValueError("must be a whole number")
        return int(value)
    return value


TIME = "2026-11-23T09:30:00.000000Z"
"""The time in examples."""

WITHOUT_NUL_PATTERN = r"^[^\u0000]*$"
"""The check of ``WithoutNul`` as a pattern (ECMA-262), for the OpenAPI document."""

WithoutNul = AfterValidator(_without_nul)
"""Marks text that may hold anything but NUL, which some engines and clients cannot store."""

_TRUTHS: Mapping[object, bool] = {"true": True, "1": True, "false": False, "0": False}


def truth(value: object) -> object:
    """Parse a Boolean query parameter: ``true`` or ``1``, ``false`` or ``0``."""
    if value not in _TRUTHS:
        raise ValueError("must be true or false")
    return _TRUTHS[value]


Digits = BeforeValidator(_digits)
"""Marks a whole number in a query string."""

Id = Annotated[int, Field(ge=1, le=MAX_ID)]
"""A resource's id."""

Instant = Annotated[datetime, PlainSerializer(rfc3339_text, return_type=str, when_used="json")]
"""A time in the API's format: RFC 3339 in UTC with microseconds."""


class PageQuery(QueryParameters):
    """Pagination parameters of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), Digits] = Field(
        default=DEFAULT_LIMIT, description="Items per page."
    )
    cursor: Annotated[str, Field(max_length=MAX_CURSOR_LENGTH)] | None = Field(
        default=None, description="`next_cursor` of the previous page; opaque."
    )
