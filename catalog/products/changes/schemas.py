"""Request and response schemas of the change log."""

import re
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from catalog.db.columns import MAX_ID
from catalog.http.schemas import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    TIME,
    Digits,
    Id,
    QueryParameters,
    ResponseBody,
)
from catalog.products.changes.change_ids import ChangeId
from catalog.products.models import ChangeType
from catalog.products.schemas import CHANGE_PATTERN, ProductRead

_CHANGE = re.compile(CHANGE_PATTERN.removesuffix("$"))


def change_id(text: object) -> ChangeId:
    """Parse a change id sent by a client.

    Raises:
        ValueError: it is malformed or out of range.
    """
    if isinstance(text, ChangeId):
        return text
    if not isinstance(text, str) or _CHANGE.fullmatch(text) is None:
        raise ValueError("must be a position, or a position and a token such as 8.5f0c29a1be")
    change = ChangeId.parse(text)
    if change.position > MAX_ID:
        raise ValueError(f"must not be above {MAX_ID}")
    return change


class ProductChangeRead(ResponseBody):
    """A change to a product."""

    position: int = Field(ge=1, description="1, 2, 3, … in commit order.", examples=[8])
    type: ChangeType
    id: Id = Field(description="Id of the product.", examples=[1])
    version: int = Field(
        ge=1, description="Version after the change; for a deletion, the last one.", examples=[1]
    )
    at: datetime = Field(description="The time of the change.", examples=[TIME])
    product: ProductRead | None = Field(
        description="The product as it is now; null if this or a later change deleted it."
    )


class ChangePage(ResponseBody):
    """Changes in commit order, and where to continue."""

    changes: list[ProductChangeRead]
    position: int = Field(
        ge=0,
        description="Position of the last change, or of `since` if there is none.",
        examples=[8],
    )
    change: str = Field(
        pattern=CHANGE_PATTERN, description="The next `since`.", examples=["8.5f0c29a1be"]
    )
    more: bool = Field(description="Whether more changes are available already.", examples=[False])


class ChangesQuery(QueryParameters):
    """Query parameters of the change log."""

    since: Annotated[
        ChangeId,
        PlainValidator(change_id),
        WithJsonSchema({"type": "string", "pattern": CHANGE_PATTERN, "default": "0"}),
    ] = Field(
        default_factory=lambda: ChangeId(0),
        description="A change, such as `8.5f0c29a1be`; later ones are listed. A bare position is "
        "accepted, but names another change in another history of the database.",
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), Digits] = Field(
        default=DEFAULT_LIMIT, description="Changes per response."
    )
    wait: Annotated[int, Field(ge=0, le=25), Digits] = Field(
        default=0, description="Seconds to wait for a change if there is none yet (long poll)."
    )
    last_event_id: (
        Annotated[
            ChangeId,
            PlainValidator(change_id),
            WithJsonSchema({"type": "string", "pattern": CHANGE_PATTERN}),
        ]
        | None
    ) = Field(
        default=None,
        alias="lastEventId",
        description="The header `Last-Event-ID`, as polyfills of EventSource send it, which cannot "
        "set headers. Takes precedence over `since`; pages in JSON ignore it.",
    )


class LastEventId(BaseModel):
    """A header of a request that resumes a stream of changes."""

    last_event_id: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="Last `id` received from a stream; takes precedence over `since`. Pages in "
        "JSON ignore it.",
    )
