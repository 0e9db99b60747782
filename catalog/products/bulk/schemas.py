"""Request and response schemas of bulk creates."""

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from catalog.http.schemas import Id, QueryParameters, ResponseBody
from catalog.products.schemas import truth


class BulkQuery(QueryParameters):
    """Options of a bulk create."""

    atomic: Annotated[bool, BeforeValidator(truth)] = Field(
        default=False, description="Bulk only: create all products or none."
    )
    dry_run: Annotated[bool, BeforeValidator(truth)] = Field(
        default=False, description="Bulk only: validate and write nothing."
    )


class LineError(ResponseBody):
    """An error in a line of a bulk create."""

    line: int = Field(ge=1, description="Line number; the first one if a record has several lines.")
    code: str = Field(description="Error code that a request with this line alone would get.")
    pointer: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None, description="JSON pointer to the invalid field, if it is one."
    )
    message: str


class BulkCreated(ResponseBody):
    """Result of a bulk create."""

    created: int = Field(ge=0)
    failed: int = Field(ge=0, description="Number of invalid lines.")
    first_id: Id | None
    last_id: Id | None
    errors: list[LineError] = Field(description="Errors of the first invalid lines; up to 1,000.")
