"""Ids of products: of those that a caller creates, and of those that a list shows."""

from tests.support import Caller, Response


async def create_some(caller: Caller, count: int) -> list[int]:
    """Create products and return their ids, newest first."""
    return [(await caller.create_product(f"Lamp {n}")).json["id"] for n in range(count)][::-1]


def ids_of(answer: Response) -> list[int]:
    return [product["id"] for product in answer.json["products"]]
