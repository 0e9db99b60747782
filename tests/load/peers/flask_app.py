"""Flask on gunicorn's sync workers, with SQLAlchemy's ORM on PyMySQL."""

import os
from typing import Any

import jwt
from flask import Flask, abort, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, sessionmaker

from tests.load.peers.tables import Product

SECRET = os.environ["JWT_SECRET_KEY"]

app = Flask(__name__)
app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
# A sync worker handles one request at a time, so it needs one connection.
engine = create_engine(os.environ["DATABASE_URL"], pool_size=1)
sessions = sessionmaker(engine, class_=Session, expire_on_commit=False)


@app.get("/api/products")
def list_products() -> ResponseReturnValue:
    """Render a page, newest first."""
    limit = request.args.get("limit", 100, type=int)
    cursor = request.args.get("cursor", type=int)
    statement = select(Product).order_by(Product.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(Product.id < cursor)
    with sessions() as session:
        products = session.scalars(statement).all()
    page = products[:limit]
    following = None
    if len(products) > limit:
        following = url_for("list_products", limit=limit, cursor=page[-1].id)
    return jsonify(products=[_rendered(product) for product in page], next=following)


@app.post("/api/products")
def create_product() -> ResponseReturnValue:
    """Create a product."""
    user_id = _caller()
    data = request.get_json()
    name, price = data.get("name"), data.get("price")
    if not isinstance(name, str) or not isinstance(price, int | float):
        abort(422)
    with sessions() as session:
        product = Product(
            name=name, price=price, description=data.get("description"), user_id=user_id
        )
        session.add(product)
        session.commit()
    return jsonify(_rendered(product)), 201


def _caller() -> int:
    """Return the id of the token's account."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        claims = jwt.decode(token, SECRET, ["HS256"], options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError:
        abort(401)
    if scheme != "Bearer":
        abort(401)
    return int(claims["sub"])


def _rendered(product: Product) -> dict[str, Any]:
    return {
        "id": product.id,
        "name": product.name,
        "description": product.description,
        "price": product.price,
        "user_id": product.user_id,
        "version": product.version,
        "created_at": product.created_at.isoformat() + "Z",
        "updated_at": product.updated_at.isoformat() + "Z",
    }
