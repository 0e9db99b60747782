"""In-memory model of the API for two owners and an administrator.

It states what the contract promises and nothing about how the service does it, so that every
difference between the two is a defect in one of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

FIELDS = (
    *("id", "name", "description", "price"),
    *("key", "user_id", "version", "created_at", "updated_at"),
)


@dataclass
class Model:
    """Products, idempotency keys and changes of the accounts in one run.

    Attributes:
        products: by id, as the API renders them.
        gone: ids of deleted products.
        keys: content and first answer by owner and idempotency key.
        changes: type, id and version of each change, in order.
    """

    products: dict[int, dict[str, Any]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    keys: dict[tuple[int, str], tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    changes: list[tuple[str, int, int]] = field(default_factory=list)

    def create(self, product: dict[str, Any]) -> None:
        """Add a product that the API has created."""
        self.products[product["id"]] = product
        self.changes.append(("created", product["id"], 1))

    def change(self, product_id: int, values: dict[str, Any], updated_at: str) -> None:
        """Change some fields; setting the present values is no change."""
        product = self.products[product_id]
        if all(product[name] == value for name, value in values.items()):
            return
        version = product["version"] + 1
        self.products[product_id] = {
            **product,
            **values,
            "version": version,
            "updated_at": updated_at,
        }
        self.changes.append(("updated", product_id, version))

    def delete(self, product_id: int) -> None:
        """Delete one product."""
        product = self.products.pop(product_id)
        self.gone.add(product_id)
        self.changes.append(("deleted", product_id, product["version"]))

    def delete_owner(self, user_id: int) -> None:
        """Delete all products of an account, in the order of their ids."""
        for product_id in sorted(self.products):
            if self.products[product_id]["user_id"] == user_id:
                self.delete(product_id)

    def page(
        self,
        *,
        user_id: int,
        sort: str = "-id",
        q: str | None = None,
        min_price: float | None = None,
        max_price: float | None = None,
        ids: Iterable[int] | None = None,
    ) -> list[dict[str, Any]]:
        """Return all products of an owner that match, in order."""
        wanted = None if ids is None else set(ids)
        found = [
            product
            for product in self.products.values()
            if product["user_id"] == user_id
            and (min_price is None or product["price"] >= min_price)
            and (max_price is None or product["price"] <= max_price)
            and (wanted is None or product["id"] in wanted)
            and (q is None or has_words(product, q))
        ]
        key = sort.removeprefix("-")
        found.sort(key=lambda product: (product[key], product["id"]), reverse=sort[0] == "-")
        return found


def has_words(product: dict[str, Any], q: str) -> bool:
    """Tell whether every word begins some word of the name or the description, both in ASCII."""
    words = f"{product['name']} {product['description'] or ''}".lower().split()
    return all(any(word.startswith(term) for word in words) for term in q.lower().split())
