"""FastAPI on uvicorn (uvloop, httptools), with SQLAlchemy's ORM on asyncmy."""

import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from tests.load.peers.tables import Product

SECRET = os.environ["JWT_SECRET_KEY"]

app = FastAPI()
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class ProductCreate(BaseModel):
    """A new product."""

    name: str = Field(min_length=1, max_length=512)
    price: float = Field(ge=0, le=1e12)
    description: str | None = None


class ProductRead(BaseModel):
    """A product."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    description: str | None
    price: float
    user_id: int
    version: int
    created_at: datetime
    updated_at: datetime


class ProductPage(BaseModel):
    """Products, newest first, and the link to the next page."""

    products: list[ProductRead]
    next: str | None


async def database_session() -> AsyncIterator[AsyncSession]:
    """Provide the request's own session."""
    async with sessions() as session:
        yield session


async def signed_in(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> int:
    """Return the id of the token's account."""
    try:
        claims = jwt.decode(
            credentials.credentials, SECRET, ["HS256"], options={"require": ["exp", "sub"]}
        )
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    return int(claims["sub"])


@app.get("/api/products")
async def list_products(
    session: Annotated[AsyncSession, Depends(database_session)],
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    cursor: int | None = None,
) -> ProductPage:
    """Render a page."""
    statement = select(Product).order_by(Product.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(Product.id < cursor)
    products = (await session.scalars(statement)).all()
    page = [ProductRead.model_validate(product) for product in products[:limit]]
    following = None
    if len(products) > limit:
        following = f"/api/products?limit={limit}&cursor={page[-1].id}"
    return ProductPage(products=page, next=following)


@app.post("/api/products", status_code=201)
async def create_product(
    data: ProductCreate,
    user_id: Annotated[int, Depends(signed_in)],
    session: Annotated[AsyncSession, Depends(database_session)],
) -> ProductRead:
    """Create a product."""
    product = Product(**data.model_dump(), user_id=user_id)
    session.add(product)
    await session.commit()
    return ProductRead.model_validate(product)
