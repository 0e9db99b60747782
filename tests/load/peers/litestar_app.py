"""Litestar on granian; its reads and writes are in ``records``."""

from typing import Annotated, Any

from litestar import Litestar, Request, Response, delete, get, patch, post
from litestar.params import Parameter

from tests.load.peers import records
from tests.load.peers.records import (
    MOST_PRODUCTS,
    Access,
    Account,
    ChangePage,
    ProductCreate,
    ProductPage,
    ProductRead,
    ProductUpdate,
    RefusedError,
)

Limit = Annotated[int, Parameter(ge=1, le=MOST_PRODUCTS)]


@get("/api/products")
async def list_products(limit: Limit = 100, cursor: int | None = None) -> ProductPage:
    """Render a page."""
    return await records.read_page(limit, cursor)


@get("/api/products/my")
async def list_my_products(request: Request[Any, Any, Any], limit: Limit = 100) -> ProductPage:
    """Render the first page of the caller's products."""
    return await records.read_own_page(_caller(request), limit)


@get("/api/products/changes")
async def list_changes(since: int = 0, limit: Limit = 100) -> ChangePage:
    """Render changes."""
    return await records.read_changes(since, limit)


@get("/api/auth/me")
async def read_account(request: Request[Any, Any, Any]) -> Account:
    """Render the caller's account."""
    return await records.read_account(_caller(request))


@post("/api/auth/refresh", status_code=200)
async def refresh_token(request: Request[Any, Any, Any]) -> Access:
    """Render a new access token."""
    return await records.refresh(request.headers.get("Authorization", ""))


@post("/api/products")
async def create_product(data: ProductCreate, request: Request[Any, Any, Any]) -> ProductRead:
    """Create a product."""
    return await records.create(data, _caller(request))


@get("/api/products/{product_id:int}")
async def read_product(product_id: int) -> Response[ProductRead]:
    """Render a product."""
    product = await records.read_one(product_id)
    return Response(product, headers={"ETag": product.etag})


@patch("/api/products/{product_id:int}")
async def change_product(
    product_id: int, data: ProductUpdate, request: Request[Any, Any, Any]
) -> Response[ProductRead]:
    """Change a product of the caller."""
    if_match = request.headers.get("If-Match")
    changed = await records.change(product_id, data, user_id=_caller(request), if_match=if_match)
    return Response(changed, headers={"ETag": changed.etag})


@delete("/api/products/{product_id:int}", status_code=200)
async def delete_product(product_id: int, request: Request[Any, Any, Any]) -> dict[str, int]:
    """Delete a product of the caller."""
    return await records.remove(product_id, _caller(request))


def refuse(_request: Request[Any, Any, Any], error: RefusedError) -> Response[dict[str, int]]:
    """Render a refusal."""
    return Response({"status": error.status}, status_code=error.status)


def _caller(request: Request[Any, Any, Any]) -> int:
    return records.caller_of(request.headers.get("Authorization", ""))


app = Litestar(
    [
        list_products,
        list_my_products,
        list_changes,
        read_account,
        refresh_token,
        create_product,
        read_product,
        change_product,
        delete_product,
    ],
    exception_handlers={RefusedError: refuse},
    openapi_config=None,
)
