"""Litestar on granian, with SQLAlchemy Core on asyncmy and msgspec's bytes: the strongest peer.

Plain rows instead of entities, and reads without a transaction, so that a page is one round trip.
"""

import os
from datetime import datetime
from typing import Annotated, Any

import jwt
from litestar import Litestar, Request, get, post
from litestar.exceptions import NotAuthorizedException
from litestar.params import Parameter
from msgspec import Meta, Struct
from sqlalchemy import bindparam, insert, select
from sqlalchemy.ext.asyncio import create_async_engine

from tests.load.peers.tables import Product, now

SECRET = os.environ["JWT_SECRET_KEY"]

products = Product.__table__.c
writing = create_async_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
reading = create_async_engine(
    os.environ["DATABASE_URL"],
    pool_size=10,
    max_overflow=0,
    isolation_level="AUTOCOMMIT",
    skip_autocommit_rollback=True,
)

COLUMNS = (
    products.id,
    products.name,
    products.description,
    products.price,
    products.user_id,
    products.version,
    products.created_at,
    products.updated_at,
)
FIRST_PAGE = select(*COLUMNS).order_by(products.id.desc()).limit(bindparam("rows"))
PAGE = FIRST_PAGE.where(products.id < bindparam("cursor"))
CREATE = insert(Product)


class ProductCreate(Struct):
    """A new product."""

    name: Annotated[str, Meta(min_length=1, max_length=512)]
    price: Annotated[float, Meta(ge=0, le=1e12)]
    description: str | None = None


class ProductRead(Struct):
    """A product; its fields are in the order of the columns."""

    id: int
    name: str
    description: str | None
    price: float
    user_id: int
    version: int
    created_at: datetime
    updated_at: datetime


class ProductPage(Struct):
    """Products, newest first, and the link to the next page."""

    products: list[ProductRead]
    next: str | None


@get("/api/products")
async def list_products(
    limit: Annotated[int, Parameter(ge=1, le=200)] = 100, cursor: int | None = None
) -> ProductPage:
    """Render a page."""
    async with reading.connect() as connection:
        if cursor is None:
            result = await connection.execute(FIRST_PAGE, {"rows": limit + 1})
        else:
            result = await connection.execute(PAGE, {"rows": limit + 1, "cursor": cursor})
    rows = result.all()
    page = [ProductRead(*row) for row in rows[:limit]]
    following = None
    if len(rows) > limit:
        following = f"/api/products?limit={limit}&cursor={page[-1].id}"
    return ProductPage(page, following)


@post("/api/products")
async def create_product(data: ProductCreate, request: Request[Any, Any, Any]) -> ProductRead:
    """Offer a product."""
    user_id = _caller(request.headers.get("Authorization", ""))
    at = now()
    values = {
        "name": data.name,
        "description": data.description,
        "price": data.price,
        "user_id": user_id,
        "version": 1,
        "created_at": at,
        "updated_at": at,
    }
    async with writing.begin() as connection:
        result = await connection.execute(CREATE, values)
    return ProductRead(id=result.lastrowid, **values)


def _caller(authorization: str) -> int:
    """Return the id of the token's account."""
    scheme, _, token = authorization.partition(" ")
    try:
        claims = jwt.decode(token, SECRET, ["HS256"], options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError:
        raise NotAuthorizedException from None
    if scheme != "Bearer":
        raise NotAuthorizedException
    return int(claims["sub"])


app = Litestar([list_products, create_product], openapi_config=None)
