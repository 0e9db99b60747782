"""JSON shapes of ``/api/products``."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from catalog.http.schemas import (
    WITHOUT_NUL_PATTERN,
    Id,
    PageQuery,
    RequestBody,
    ResponseBody,
    WithoutNul,
)
from catalog.products.models import MAX_DESCRIPTION, MAX_NAME, MAX_PRICE

NOT_BLANK_PATTERN = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
"""What ``Name`` checks, for readers of the OpenAPI document (ECMA-262)."""


def _not_blank(name: str) -> str:
    if not name.strip():
        raise ValueError("must not be blank")
    return name


def _positive_zero(price: float) -> float:
    # -0.0 + 0.0 is 0.0: the sign of nothing would come back as "-0.0".
    return price + 0.0


Name = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME, json_schema_extra={"pattern": NOT_BLANK_PATTERN}),
    WithoutNul,
    AfterValidator(_not_blank),
]
Description = Annotated[
    str,
    Field(max_length=MAX_DESCRIPTION, json_schema_extra={"pattern": WITHOUT_NUL_PATTERN}),
    WithoutNul,
]
Price = Annotated[
    float, Field(ge=0, le=MAX_PRICE, allow_inf_nan=False), AfterValidator(_positive_zero)
]


class ProductCreate(RequestBody):
    """A new product."""

    name: Name = Field(description="Not blank; kept as it is.", examples=["Desk lamp"])
    price: Price = Field(description="Comes back as the same double.", examples=[24.9])
    description: Description | None = Field(default=None, examples=["Warm light, oak foot."])


class ProductUpdate(RequestBody):
    """What is to be another of a product; what is left out stays as it is (RFC 7396)."""

    # The defaults never count: only what was given is looked at. They are made and not given, so
    # that the document does not show them.
    name: Name = Field(default_factory=str, examples=["Desk lamp"])
    price: Price = Field(default_factory=float, examples=[24.9])
    description: Description | None = Field(
        default_factory=str, description="Null takes it away.", examples=["Warm light, oak foot."]
    )


class ProductRead(ResponseBody):
    """A product."""

    id: Id
    name: str
    description: str | None
    price: float
    user_id: Id = Field(description="Its owner.")
    version: int = Field(ge=1, description="Counts its changes from 1.")
    created_at: datetime = Field(examples=["2026-11-23T09:30:00.000000Z"])
    updated_at: datetime = Field(examples=["2026-11-23T09:30:00.000000Z"])


class ProductPage(ResponseBody):
    """Products, newest first, and where they go on."""

    products: list[ProductRead]
    next: str | None = Field(description="The relative URL of the next page, or null at the end.")


class ProductDeleted(ResponseBody):
    """What was deleted."""

    message: str = Field(examples=["Product 7 deleted."])
    id: Id


class ListQuery(PageQuery):
    """Which page of a list."""


class IfMatch(BaseModel):
    """A header of a request that changes a product."""

    if_match: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="Entity tags that the product may have, or `*`; `W/` before one is ignored.",
    )


class PageHeaders(ResponseBody):
    """Headers of a page."""

    link: str | None = Field(default=None, description='The next page, as `rel="next"`.')


class ProductHeaders(ResponseBody):
    """Headers of a product."""

    etag: str = Field(description="For `If-Match` and `If-None-Match`.")


class CreatedHeaders(ProductHeaders):
    """Headers of a new product."""

    location: str
