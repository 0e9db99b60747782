"""Requests of programs with the account of a page."""

from typing import Any

import httpx


async def token_of(page: Any, service: str) -> dict[str, str]:
    """Return the header that signs a program in as the page's account."""
    session = await page.context.request.post(
        f"{service}/console/session/refresh", data={}, headers={"Origin": service}
    )
    return {"Authorization": f"Bearer {(await session.json())['access_token']}"}


async def create_as_program(
    page: Any, service: str, name: str, description: str | None
) -> dict[str, Any]:
    """Create a product of the page's account with texts that no form can send."""
    body = {"name": name, "price": 5, "description": description}
    async with httpx.AsyncClient(base_url=service, headers=await token_of(page, service)) as client:
        answer = await client.post("/api/products", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


async def change_as_program(page: Any, service: str, product_id: int, **changes: Any) -> None:
    """Change a product of the page's account."""
    async with httpx.AsyncClient(base_url=service, headers=await token_of(page, service)) as client:
        answer = await client.patch(f"/api/products/{product_id}", json=changes)
        assert answer.status_code == 200, answer.text


async def read(service: str, product_id: int) -> tuple[str, float, str | None]:
    """Return the name, price and description of a product."""
    async with httpx.AsyncClient(base_url=service) as client:
        product = (await client.get(f"/api/products/{product_id}")).json()
    return product["name"], product["price"], product["description"]
