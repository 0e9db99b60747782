"""Request and response schemas of ``/api/products``."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from pydantic.json_schema import SkipJsonSchema

from catalog.http.schemas import (
    TIME,
    WITHOUT_NUL_PATTERN,
    Digits,
    Id,
    PageQuery,
    RequestBody,
    ResponseBody,
    WithoutNul,
    truth,
)
from catalog.products.models import MAX_DESCRIPTION, MAX_KEY, MAX_NAME, MAX_PRICE
from catalog.products.search.tokenizer import terms_of

PATH = "/api/products"
"""Base path of the product routes."""

NOT_BLANK_PATTERN = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
"""The checks of ``Name`` as a pattern for the OpenAPI document (ECMA-262)."""


def _not_blank(name: str) -> str:
    if not name.strip():
        raise ValueError("must not be blank")
    return name


def _positive_zero(price: float) -> float:
    # -0.0 + 0.0 is 0.0; otherwise a negative zero would be returned as "-0.0".
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
Key = Annotated[
    str,
    Field(min_length=1, max_length=MAX_KEY, json_schema_extra={"pattern": WITHOUT_NUL_PATTERN}),
    WithoutNul,
]
Price = Annotated[
    float, Field(ge=0, le=MAX_PRICE, allow_inf_nan=False), AfterValidator(_positive_zero)
]

CHANGE_PATTERN = r"^[0-9]{1,19}(\.[0-9A-Za-z]{1,32})?$"
"""Syntax of a change id: a position, and a token unless it is a bare position."""


class ProductCreate(RequestBody):
    """A new product."""

    name: Name = Field(description="Not blank; stored unchanged.", examples=["Desk lamp"])
    price: Price = Field(description="Returned as exactly the same double.", examples=[24.9])
    # Factories, so that the OpenAPI document does not show the default: generators of clients take
    # a field with a default for one that is always sent.
    description: Description | None = Field(
        default_factory=lambda: None,
        description="Null, or left out, for none.",
        examples=["Warm light, oak foot."],
    )
    key: Key | None = Field(
        default_factory=lambda: None,
        description="Your own name of the product, unique among yours.",
    )


class ProductUpdate(RequestBody):
    """Merge patch of a product; members left out stay as they are (RFC 7396)."""

    # Only the members that were sent are used, never the defaults. They are factories, so that the
    # OpenAPI document does not show them.
    name: Name = Field(default_factory=str, examples=["Desk lamp"])
    price: Price = Field(default_factory=float, examples=[24.9])
    description: Description | None = Field(
        default_factory=str, description="Null removes it.", examples=["Warm light, oak foot."]
    )
    key: Key | None = Field(
        default_factory=str,
        description="Unique among the owner's products; null removes it.",
    )


class ProductUpsert(ProductUpdate):
    """A line of an import that changes the product it names, or creates one."""

    id: Id | None = None
    version: Id | None = None


class ProductRead(ResponseBody):
    """A product."""

    id: Id = Field(examples=[1])
    name: str = Field(examples=["Desk lamp"])
    description: str | None = Field(examples=["Warm light, oak foot."])
    price: float = Field(examples=[24.9])
    key: str | None = Field(description="The owner's own name of the product.", examples=["sku-1"])
    user_id: Id = Field(description="Id of the owner.", examples=[2])
    version: int = Field(
        ge=1, description="Starts at 1 and grows by 1 with each change.", examples=[1]
    )
    created_at: datetime = Field(examples=[TIME])
    updated_at: datetime = Field(examples=[TIME])


def _nothing_required(schema: dict[str, Any]) -> None:
    schema.pop("required")


class ListedProduct(ProductRead):
    """A product of a list, reduced to ``fields`` where those are given."""

    model_config = ConfigDict(json_schema_extra=_nothing_required)


class ProductPage(ResponseBody):
    """One page of products in the requested order, and the link to the next page."""

    products: list[ListedProduct]
    next: str | None = Field(
        description="The relative URL of the next page, or null at the end.",
        examples=["/api/products?cursor=0XQ5oTq0bUIvWYcH2Kc3_1sx&limit=1"],
    )
    next_cursor: str | None = Field(
        description="The `cursor` of the next page, or null at the end.",
        examples=["0XQ5oTq0bUIvWYcH2Kc3_1sx"],
    )
    total: int | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="Number of products on all pages, if requested.",
    )


class ProductDeleted(ResponseBody):
    """The deleted product."""

    message: str = Field(examples=["Product 1 deleted."])
    id: Id = Field(examples=[1])


Sort = Literal["id", "-id", "name", "-name", "price", "-price", "created_at", "-created_at"]
"""Sort orders of a list; ``-`` means descending."""

DEFAULT_SORT: Sort = "-id"

ProductField = Literal[
    "id", "name", "description", "price", "key", "user_id", "version", "created_at", "updated_at"
]

MAX_IDS = 200
MAX_Q = 200
"""Characters of a search text."""
MAX_TERMS = 32
"""Words of a search text; in scripts without spaces, pairs of characters."""

# JSON number (RFC 8259, section 6).
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def _number(value: object) -> object:
    if not (isinstance(value, str) and len(value) <= 40 and _NUMBER.fullmatch(value)):
        raise ValueError("must be a number, as JSON writes it")
    return float(value)


def _parts(value: str | Sequence[str]) -> object:
    """Split comma-separated texts and remove duplicates.

    Args:
        value: the text, or several if the parameter was repeated.
    """
    parts = (value if isinstance(value, str) else ",".join(value)).split(",")
    # The OpenAPI document limits the number of items before duplicates are removed.
    if len(parts) > MAX_IDS:
        raise ValueError(f"must have at most {MAX_IDS} items")
    return tuple(dict.fromkeys(parts))


def _has_words(q: str) -> str:
    terms = terms_of(q)
    if not terms:
        raise ValueError("must contain a letter or a digit")
    if len(terms) > MAX_TERMS:
        raise ValueError(f"must contain at most {MAX_TERMS} words")
    return q


SearchText = Annotated[str, Field(max_length=MAX_Q), WithoutNul, AfterValidator(_has_words)]

PriceBound = Annotated[float, Field(ge=0, le=MAX_PRICE), BeforeValidator(_number)]


class MyListQuery(PageQuery):
    """Query parameters of the caller's own products."""

    lists = frozenset({"ids", "fields"})

    sort: Sort = Field(
        default=DEFAULT_SORT,
        description="Order by id, name (by code point), price or creation time; `-` means "
        "descending. Ties are broken by id.",
    )
    q: SearchText | None = Field(
        default=None,
        description="Words, each of which must begin some word of the name or the description; "
        "case, accents and width are ignored.",
        examples=["desk lam"],
    )
    min_price: PriceBound | None = Field(default=None, description="Minimum price.")
    max_price: PriceBound | None = Field(default=None, description="Maximum price.")
    ids: (
        Annotated[
            tuple[Annotated[Id, Digits], ...],
            Field(max_length=MAX_IDS),
            BeforeValidator(_parts),
        ]
        | None
    ) = Field(
        default=None, description=f"Only these ids, up to {MAX_IDS}: `ids=5,8`, or `ids=5&ids=8`."
    )
    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY), WithoutNul] | None = Field(
        default=None, description="Only products with this key, of which each owner has one."
    )
    fields: Annotated[tuple[ProductField, ...], BeforeValidator(_parts)] | None = Field(
        default=None,
        description="Only these fields of each product: `fields=id,name`, or "
        "`fields=id&fields=name`.",
    )
    format: Literal["json", "ndjson", "csv"] | None = Field(
        default=None,
        description="A page (`json`), or everything that matches as a file; takes precedence over "
        "`Accept`.",
    )
    total: Annotated[bool, BeforeValidator(truth)] = Field(
        default=False, description="Whether to count the products on all pages."
    )
    bom: Annotated[bool, BeforeValidator(truth)] = Field(
        default=False,
        description="Exports as CSV only: begin with a byte order mark, by which Excel recognizes "
        "UTF-8.",
    )
    guard: Annotated[bool, BeforeValidator(truth)] = Field(
        default=True,
        description="Exports as CSV only: put an apostrophe before texts that a spreadsheet would "
        "run as a formula.",
    )


class ListQuery(MyListQuery):
    """Query parameters of all products."""

    user_id: Annotated[Id, Digits] | None = Field(
        default=None, description="Only products of this owner."
    )


class Preconditions(BaseModel):
    """Headers of a request that changes a product."""

    if_match: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="Entity tags that the product may have, or `*`; a `W/` prefix and suffixes "
        "such as `-gzip` are ignored.",
    )
    if_none_match: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="Entity tags that the product may not have, or `*`.",
    )


class IdempotencyHeader(BaseModel):
    """A header of a request that creates a product."""

    idempotency_key: str | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        max_length=255,
        description="A repeat with the same key and content gets the first response.",
    )


class PositionHeaders(ResponseBody):
    """Headers of every response about products."""

    catalog_position: int = Field(
        ge=0,
        description="A position that the content includes; after a write, its own position.",
        examples=[8],
    )
    catalog_change: str = Field(
        pattern=CHANGE_PATTERN,
        description="The position with the token of its history, for `since`.",
        examples=["8.5f0c29a1be"],
    )


class PageHeaders(PositionHeaders):
    """Headers of a page."""

    link: str | None = Field(default=None, description='The next page, as `rel="next"`.')


class ProductHeaders(PositionHeaders):
    """Headers of a product."""

    etag: str = Field(description="For `If-Match` and `If-None-Match`.")


class CreatedHeaders(ProductHeaders):
    """Headers of a new product."""

    location: str = Field(description="The product's path.", examples=["/api/products/1"])
    catalog_batch_position: int | None = Field(
        default=None,
        description="Last position of the shared transaction, if it differs from its own.",
    )
    idempotency_replayed: str | None = Field(
        default=None, description="`true` if an earlier request with this key created the product."
    )
