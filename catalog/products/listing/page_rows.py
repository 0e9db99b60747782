"""Products read for a page, in any encoding, and those as decoded rows."""

from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from catalog.products import queries


class PageRows(Protocol):
    """Products read for a page, in any encoding."""

    def __len__(self) -> int:
        """Return the number of products."""

    @property
    def most_bytes(self) -> int:
        """Upper bound of their size as JSON in bytes, cheap to compute."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the JSON members of one product."""

    def id_of(self, index: int) -> int:
        """Return the id of one product, which is faster than its members."""

    def objects(self, count: int) -> list[bytes]:
        """Return the JSON objects of the first ``count`` products, or of all if there are fewer."""

    def json(self, count: int, fields: Sequence[str] | None = None) -> bytes:
        """Encode the first ``count`` products, or all if there are fewer, as a JSON array.

        Args:
            count: the maximum number of products.
            fields: the fields to include of each; None for all.
        """


_NAMES_BYTES = len(orjson.dumps(dict.fromkeys(queries.FIELDS)))


class DecodedRows:
    """Products as rows with the values of ``queries.FIELDS``."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        """Return the number of products."""
        return len(self._rows)

    @property
    def most_bytes(self) -> int:
        """Upper bound of their size as JSON in bytes."""
        return len(orjson.dumps(list(map(tuple, self._rows)))) + _NAMES_BYTES * len(self)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the JSON members of one product."""
        return queries.members_of(self._rows[index])

    def id_of(self, index: int) -> int:
        """Return the id of one product."""
        product_id: int = self._rows[index][queries.FIELDS.index("id")]
        return product_id

    def objects(self, count: int) -> list[bytes]:
        """Return the JSON objects of the first ``count`` products."""
        return [orjson.dumps(self[index]) for index in range(min(count, len(self)))]

    def json(self, count: int, fields: Sequence[str] | None = None) -> bytes:
        """Encode the first ``count`` products as a JSON array; see ``PageRows.json``."""
        products = map(self.__getitem__, range(min(count, len(self))))
        if fields is None:
            return orjson.dumps(list(products))
        return orjson.dumps([{name: product[name] for name in fields} for product in products])


def with_fields(array: bytes, fields: Sequence[str]) -> bytes:
    """Return a JSON array of products with only some fields of each."""
    products = orjson.loads(array)
    return orjson.dumps([{name: product[name] for name in fields} for product in products])
