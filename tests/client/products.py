"""Products of tests of the client: those to upload, and the names of the uploaded ones."""

from collections.abc import Iterator

from catalog.client import AsyncClient, NewProduct


def lamps(count: int) -> Iterator[NewProduct]:
    return ({"name": f"Lamp {number}", "price": number} for number in range(count))


async def names_of(client: AsyncClient) -> list[str]:
    return [product.name async for product in client.products(mine=True, sort="id")]
