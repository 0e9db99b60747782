"""Reads and writes that Litestar and BlackSheep share: SQLAlchemy Core on asyncmy, msgspec's types.

Plain rows instead of entities, and reads without a transaction, so that a page is one round trip.
"""

import os
import time
from datetime import datetime
from typing import Annotated

import jwt
from msgspec import UNSET, Meta, Struct, UnsetType, structs
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.ext.asyncio import create_async_engine

from tests.load.peers.tables import Change, Product, User, now

SECRET = os.environ["JWT_SECRET_KEY"]
ACCESS_SECONDS = 900
MOST_PRODUCTS = 200
"""Of one page."""

products = Product.__table__.c
changes = Change.__table__.c
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
CHANGES = (
    select(changes.position, changes.type, changes.product_id, changes.version, changes.at)
    .add_columns(*COLUMNS)
    .join_from(Change, Product, changes.product_id == products.id, isouter=True)
    .where(changes.position > bindparam("since"))
    .order_by(changes.position)
    .limit(bindparam("rows"))
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

    @property
    def etag(self) -> str:
        """The entity tag: the version, quoted."""
        return f'"{self.version}"'


class ProductPage(Struct):
    """Products, newest first, and the link to the next page."""

    products: list[ProductRead]
    next: str | None


class Account(Struct):
    """An account; its fields are in the order of the columns."""

    id: int
    username: str
    email: str
    role: str
    created_at: datetime


class Access(Struct):
    """A new access token."""

    access_token: str


class ChangeRead(Struct):
    """A change; its fields are in the order of the columns, with the product at the end."""

    position: int
    type: str
    id: int
    version: int
    at: datetime
    product: ProductRead | None


class ChangePage(Struct):
    """Changes in the order of their commits."""

    changes: list[ChangeRead]
    position: int
    more: bool


class RefusedError(Exception):
    """The request is refused with a status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def read_page(limit: int, cursor: int | None) -> ProductPage:
    """Read a page."""
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


async def read_own_page(user_id: int, limit: int) -> ProductPage:
    """Read the first page of an account's products."""
    async with reading.connect() as connection:
        rows = (await connection.execute(OWN_PAGE, {"user_id": user_id, "rows": limit})).all()
    return ProductPage([ProductRead(*row) for row in rows], None)


async def read_account(user_id: int) -> Account:
    """Read an account.

    Raises:
        RefusedError: there is none.
    """
    async with reading.connect() as connection:
        row = (await connection.execute(ACCOUNT, {"user_id": user_id})).first()
    if row is None:
        raise RefusedError(404)
    return Account(*row)


async def refresh(authorization: str) -> Access:
    """Sign an access token for a refresh token whose account exists."""
    account = await read_account(caller_of(authorization, kind="refresh"))
    claims = {"sub": str(account.id), "exp": int(time.time()) + ACCESS_SECONDS, "type": "access"}
    return Access(jwt.encode(claims, SECRET, "HS256"))


async def read_changes(since: int, limit: int) -> ChangePage:
    """Read changes with their products, as the service has logged them."""
    async with reading.connect() as connection:
        rows = (await connection.execute(CHANGES, {"since": since, "rows": limit})).all()
    found = [
        ChangeRead(*row[:5], product=None if row[5] is None else ProductRead(*row[5:]))
        for row in rows
    ]
    return ChangePage(found, found[-1].position if found else since, len(found) == limit)


async def create(data: ProductCreate, user_id: int) -> ProductRead:
    """Create a product."""
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


async def read_one(product_id: int) -> ProductRead:
    """Read a product.

    Raises:
        RefusedError: there is none.
    """
    async with reading.connect() as connection:
        row = (await connection.execute(ONE, {"product_id": product_id})).first()
    if row is None:
        raise RefusedError(404)
    return ProductRead(*row)


async def change(
    product_id: int, data: ProductUpdate, *, user_id: int, if_match: str | None
) -> ProductRead:
    """Change a product, under a lock of its row.

    Raises:
        RefusedError: there is none, another account owns it, or ``if_match`` is not its tag.
    """
    async with writing.begin() as connection:
        row = (await connection.execute(LOCKED, {"product_id": product_id})).first()
        if row is None:
            raise RefusedError(404)
        if row.user_id != user_id:
            raise RefusedError(403)
        if if_match not in {None, ProductRead(*row).etag}:
            raise RefusedError(412)
        values = {name: value for name, value in structs.asdict(data).items() if value is not UNSET}
        values |= {"version": row.version + 1, "updated_at": now()}
        await connection.execute(EDIT.values(**values), {"product_id": product_id})
    return ProductRead(**{**row._mapping, **values})


async def remove(product_id: int, user_id: int) -> dict[str, int]:
    """Delete a product.

    Raises:
        RefusedError: the account has none with this id.
    """
    async with writing.begin() as connection:
        gone = await connection.execute(REMOVE, {"product_id": product_id, "caller_id": user_id})
    if not gone.rowcount:
        raise RefusedError(404)
    return {"id": product_id}


def caller_of(authorization: str, *, kind: str = "access") -> int:
    """Return the id of the token's account.

    Raises:
        RefusedError: the token is not valid, or of another kind.
    """
    scheme, _, token = authorization.partition(" ")
    try:
        claims = jwt.decode(token, SECRET, ["HS256"], options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError:
        raise RefusedError(401) from None
    if scheme != "Bearer" or claims.get("type") != kind:
        raise RefusedError(401)
    return int(claims["sub"])
