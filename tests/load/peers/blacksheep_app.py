"""BlackSheep on granian; its reads and writes are in ``records``."""

from typing import TypeVar

import msgspec
from blacksheep import Application, Content, Request, Response

from tests.load.peers import records
from tests.load.peers.records import (
    MOST_PRODUCTS,
    ProductCreate,
    ProductRead,
    ProductUpdate,
    RefusedError,
)

T = TypeVar("T")

app = Application()


@app.router.get("/api/products")
async def list_products(limit: int = 100, cursor: int | None = None) -> Response:
    """Render a page."""
    return _rendered(await records.read_page(_bounded(limit), cursor))


@app.router.get("/api/products/my")
async def list_my_products(request: Request, limit: int = 100) -> Response:
    """Render the first page of the caller's products."""
    return _rendered(await records.read_own_page(_caller(request), _bounded(limit)))


@app.router.get("/api/products/changes")
async def list_changes(since: int = 0, limit: int = 100) -> Response:
    """Render changes."""
    return _rendered(await records.read_changes(since, _bounded(limit)))


@app.router.get("/api/auth/me")
async def read_account(request: Request) -> Response:
    """Render the caller's account."""
    return _rendered(await records.read_account(_caller(request)))


@app.router.post("/api/auth/refresh")
async def refresh_token(request: Request) -> Response:
    """Render a new access token."""
    return _rendered(await records.refresh(_header(request, b"Authorization")))


@app.router.post("/api/products")
async def create_product(request: Request) -> Response:
    """Create a product."""
    user_id = _caller(request)
    return _rendered(await records.create(await _body(request, ProductCreate), user_id), 201)


@app.router.get("/api/products/{product_id}")
async def read_product(product_id: int) -> Response:
    """Render a product."""
    return _tagged(await records.read_one(product_id))


@app.router.patch("/api/products/{product_id}")
async def change_product(request: Request, product_id: int) -> Response:
    """Change a product of the caller."""
    user_id = _caller(request)
    data = await _body(request, ProductUpdate)
    if_match = _header(request, b"If-Match") or None
    return _tagged(await records.change(product_id, data, user_id=user_id, if_match=if_match))


@app.router.delete("/api/products/{product_id}")
async def delete_product(request: Request, product_id: int) -> Response:
    """Delete a product of the caller."""
    return _rendered(await records.remove(product_id, _caller(request)))


@app.exception_handler(RefusedError)
async def refuse(_app: Application, _request: Request, error: RefusedError) -> Response:
    """Render a refusal."""
    return _rendered({"status": error.status}, error.status)


def _rendered(value: object, status: int = 200) -> Response:
    return Response(status, None, Content(b"application/json", msgspec.json.encode(value)))


def _tagged(product: ProductRead) -> Response:
    response = _rendered(product)
    response.add_header(b"ETag", product.etag.encode())
    return response


async def _body(request: Request, expected: type[T]) -> T:
    try:
        data: T = msgspec.json.decode(await request.read() or b"", type=expected)
    except msgspec.ValidationError:
        raise RefusedError(422) from None
    except msgspec.DecodeError:
        raise RefusedError(400) from None
    return data


def _bounded(limit: int) -> int:
    if not 1 <= limit <= MOST_PRODUCTS:
        raise RefusedError(422)
    return limit


def _header(request: Request, name: bytes) -> str:
    value = request.get_first_header(name)
    return "" if value is None else value.decode("latin-1")


def _caller(request: Request) -> int:
    return records.caller_of(_header(request, b"Authorization"))
