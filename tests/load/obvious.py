"""The obvious implementation of ``/api/products``, to compare with.

Entities from a session, ``jsonify``, the stock server: what the same packages give when they are
used as their introductions show. Reads the service's own tables. ``DATABASE_URL`` says where.
"""

import os

from quart import Quart, Response, jsonify, request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from catalog.products.models import Product

app = Quart(__name__)
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=10)
sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


@app.get("/api/products")
async def list_products() -> Response:
    """Render a page, newest first."""
    limit = int(request.args.get("limit", "100"))
    async with sessions() as session:
        products = await session.scalars(select(Product).order_by(Product.id.desc()).limit(limit))
        return jsonify(products=[_rendered(product) for product in products])


@app.post("/api/products")
async def create_product() -> tuple[Response, int]:
    """Offer a product, for whoever was the first to sign up."""
    data = await request.get_json()
    async with sessions() as session:
        product = Product(**data, user_id=1)
        session.add(product)
        await session.commit()
        return jsonify(_rendered(product)), 201


def _rendered(product: Product) -> dict[str, object]:
    return {
        "id": product.id,
        "name": product.name,
        "description": product.description,
        "price": product.price,
        "user_id": product.user_id,
        "version": product.version,
        "created_at": product.created_at.isoformat(),
        "updated_at": product.updated_at.isoformat(),
    }
