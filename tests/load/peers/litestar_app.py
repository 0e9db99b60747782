"""Litestar on granian, with SQLAlchemy Core on asyncmy and msgspec's bytes: the strongest peer.

Plain rows instead of entities, and reads without a transaction, so that a page is one round trip.
"""

import os
from datetime import datetime
from typing import Annotated, Any

import jwt
from litestar import Litestar, Request, Response, delete, get, patch, post
from litestar.exceptions import ClientException, NotAuthorizedException, NotFoundException
from litestar.exceptions import PermissionDeniedException as Forbidden
from litestar.params import Parameter
from msgspec import UNSET, Meta, Struct, UnsetType, structs
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.ext.asyncio import create_async_engine

from tests.load.peers.tables import Product, User, now

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
OWN_PAGE = FIRST_PAGE.where(products.user_id == bindparam("user_id"))
ACCOUNT = select(*(User.id, User.username, User.email, User.role, User.created_at)).where(
    User.id == bindparam("user_id")
)
CREATE = insert(Product)
ONE = select(*COLUMNS).where(products.id == bindparam("product_id"))
LOCKED = ONE.with_for_update()
EDIT = update(Product).where(products.id == bindparam("product_id"))
REMOVE = delete_from(Product).where(
    products.id == bindparam("product_id"), products.user_id == bindparam("caller_id")
)


class ProductCreate(Struct):
    """A new product."""

    name: Annotated[str, Meta(min_length=1, max_length=512)]
    price: Annotated[float, Meta(ge=0, le=1e12)]
    description: str | None = None


class ProductUpdate(Struct):
    """Changes of a product; absent fields stay."""

    name: Annotated[str, Meta(min_length=1, max_length=512)] | UnsetType = UNSET
    price: Annotated[float, Meta(ge=0, le=1e12)] | UnsetType = UNSET
    description: str | UnsetType | None = UNSET


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


class Account(Struct):
    """An account; its fields are in the order of the columns."""

    id: int
    username: str
    email: str
    role: str
    created_at: datetime


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


@get("/api/products/my")
async def list_my_products(
    request: Request[Any, Any, Any], limit: Annotated[int, Parameter(ge=1, le=200)] = 100
) -> ProductPage:
    """Render the first page of the caller's products."""
    values = {"user_id": _caller(request.headers.get("Authorization", "")), "rows": limit}
    async with reading.connect() as connection:
        rows = (await connection.execute(OWN_PAGE, values)).all()
    return ProductPage([ProductRead(*row) for row in rows], None)


@get("/api/auth/me")
async def read_account(request: Request[Any, Any, Any]) -> Account:
    """Render the caller's account."""
    user_id = _caller(request.headers.get("Authorization", ""))
    async with reading.connect() as connection:
        row = (await connection.execute(ACCOUNT, {"user_id": user_id})).first()
    if row is None:
        raise NotFoundException
    return Account(*row)


@post("/api/products")
async def create_product(data: ProductCreate, request: Request[Any, Any, Any]) -> ProductRead:
    """Create a product."""
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


@get("/api/products/{product_id:int}")
async def read_product(product_id: int) -> Response[ProductRead]:
    """Render a product."""
    async with reading.connect() as connection:
        row = (await connection.execute(ONE, {"product_id": product_id})).first()
    if row is None:
        raise NotFoundException
    return Response(ProductRead(*row), headers={"ETag": f'"{row.version}"'})


@patch("/api/products/{product_id:int}")
async def change_product(
    product_id: int, data: ProductUpdate, request: Request[Any, Any, Any]
) -> Response[ProductRead]:
    """Change a product of the caller."""
    user_id = _caller(request.headers.get("Authorization", ""))
    async with writing.begin() as connection:
        row = (await connection.execute(LOCKED, {"product_id": product_id})).first()
        if row is None:
            raise NotFoundException
        if row.user_id != user_id:
            raise Forbidden
        if request.headers.get("If-Match") not in {None, f'"{row.version}"'}:
            raise ClientException(status_code=412)
        values = {name: value for name, value in structs.asdict(data).items() if value is not UNSET}
        values |= {"version": row.version + 1, "updated_at": now()}
        await connection.execute(EDIT.values(**values), {"product_id": product_id})
    changed = ProductRead(**{**row._mapping, **values})
    return Response(changed, headers={"ETag": f'"{changed.version}"'})


@delete("/api/products/{product_id:int}", status_code=200)
async def delete_product(product_id: int, request: Request[Any, Any, Any]) -> dict[str, int]:
    """Delete a product of the caller."""
    user_id = _caller(request.headers.get("Authorization", ""))
    async with writing.begin() as connection:
        gone = await connection.execute(REMOVE, {"product_id": product_id, "caller_id": user_id})
    if not gone.rowcount:
        raise NotFoundException
    return {"id": product_id}


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


app = Litestar(
    [
        list_products,
        list_my_products,
        read_account,
        create_product,
        read_product,
        change_product,
        delete_product,
    ],
    openapi_config=None,
)
