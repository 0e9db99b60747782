"""Request and response schemas of bulk creates."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from catalog.http.schemas import Id, QueryParameters, ResponseBody, truth


class BulkQuery(QueryParameters):
    """Options of a bulk create."""

    atomic: Annotated[bool, BeforeValidator(truth)] = Field(
        default=False, description="Bulk only: create all products or none."
    )
    dry_run: Annotated[bool, BeforeValidator(truth)] = Field(
        default=False, description="Bulk only: validate and write nothing."
    )

    mode: Literal["create", "upsert"] = Field(
        default="create",
        description="Bulk only: `upsert` changes the products that lines name by `id` or `key`, "
        "and creates the others.",
    )
    guard: Annotated[bool, BeforeValidator(truth)] = Field(
        default=True,
        description="CSV only: whether to remove the apostrophes by which exports guard texts that "
        "a spreadsheet would run as a formula.",
    )


class LineError(ResponseBody):
    """An error in a line of a bulk create."""

    line: int = Field(
        ge=1,
        description="Line number; the first one if a record has several lines.",
        examples=[3],
    )
    code: str = Field(
        description="Error code that a request with this line alone would get.",
        examples=["invalid"],
    )
    pointer: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="JSON pointer to the invalid field, if it is one.",
        examples=["/name"],
    )
    message: str = Field(examples=["Must not be blank."])
    last_line: Annotated[int, Field(ge=1)] | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="Last of the lines of which nothing was read, if there are several: a fault in "
        "the first one, such as a quote that is not closed, hides the others.",
    )


class BulkCreated(ResponseBody):
    """Result of a bulk create."""

    created: int = Field(ge=0, description="Number of new products.", examples=[2])
    updated: Annotated[int, Field(ge=0)] | SkipJsonSchema[None] = Field(
        default_factory=lambda: None, description="Lines that changed a product; upsert only."
    )
    unchanged: Annotated[int, Field(ge=0)] | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="Lines whose product was like that already; upsert only.",
    )
    failed: int = Field(
        ge=0,
        description="Number of invalid records; in lines that were not read, each line counts.",
        examples=[1],
    )
    first_id: Id | None = Field(description="Smallest id of the new products.", examples=[1])
    last_id: Id | None = Field(description="Largest id of the new products.", examples=[2])
    errors: list[LineError] = Field(description="Errors of the first invalid lines; up to 1,000.")
