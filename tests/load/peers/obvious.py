"""Straightforward implementation of the service on its own packages: Quart on hypercorn.

Entities from a session, ``jsonify``, the stock server: each package used as its introduction shows.
It logs in to the service's accounts with the same hashes, so log-ins can be compared, too.
"""

import asyncio
import os

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from quart import Quart, Response, abort, jsonify, request, url_for
from quart_jwt_extended import (
    JWTManager,
    create_access_token,
    get_jwt_identity,
    jwt_required,
)
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from catalog.auth.models import User
from catalog.products.models import Product

app = Quart(__name__)
app.config["JWT_SECRET_KEY"] = os.environ["JWT_SECRET_KEY"]
# The longest duration of a run.
app.config["JWT_ACCESS_TOKEN_EXPIRES"] = 86_400
JWTManager(app)
hasher = PasswordHasher()
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=10)
sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


@app.post("/api/auth/login")
async def log_in() -> Response:
    """Check a password and issue a token."""
    data = await request.get_json()
    async with sessions() as session:
        user = await session.scalar(select(User).where(User.username == data["username"]))
    if user is None:
        abort(401)
    try:
        await asyncio.to_thread(hasher.verify, user.password_hash, data["password"])
    except VerificationError:
        abort(401)
    return jsonify(access_token=create_access_token(identity=user.id))


@app.get("/api/products")
async def list_products() -> Response:
    """Render a page, newest first."""
    limit = request.args.get("limit", 100, type=int)
    cursor = request.args.get("cursor", type=int)
    statement = select(Product).order_by(Product.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(Product.id < cursor)
    async with sessions() as session:
        products = (await session.scalars(statement)).all()
    page = products[:limit]
    following = None
    if len(products) > limit:
        following = url_for("list_products", limit=limit, cursor=page[-1].id)
    return jsonify(products=[_rendered(product) for product in page], next=following)


@app.post("/api/products")
@jwt_required
async def create_product() -> tuple[Response, int]:
    """Create a product."""
    data = await request.get_json()
    async with sessions() as session:
        product = Product(**data, user_id=get_jwt_identity())
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
