"""Writes of single products as requested, and their outcomes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from catalog.errors import CatalogError
from catalog.products.changes.change_ids import ChangeId
from catalog.products.idempotency import KeyedCreate
from catalog.products.models import NewProduct

Precondition = Callable[[dict[str, Any]], bool]
"""Precondition of a write, checked on the product's current JSON members."""


class Create(NamedTuple):
    """Create of a product, with its identity if the client sent an idempotency key."""

    new_product: NewProduct
    idempotency: KeyedCreate | None = None

    @property
    def caller_id(self) -> int:
        """The caller's account, which will own the product."""
        return self.new_product.owner_id


class Update(NamedTuple):
    """Update of fields of a product that the caller owns; an administrator may update any.

    If all values equal the current ones, nothing is written and the version stays.

    Attributes:
        may_administer: whether an administrator has its rights in this request.
        stored_bytes: as in ``BatchFull``, once that is known.
    """

    product_id: int
    caller_id: int
    values: Mapping[str, Any]
    precondition: Precondition | None = None
    may_administer: bool = True
    stored_bytes: int = 0


class Delete(NamedTuple):
    """Delete of a product that the caller owns; an administrator may delete any.

    Attributes:
        may_administer: whether an administrator has its rights in this request.
        stored_bytes: as in ``BatchFull``, once that is known.
    """

    product_id: int
    caller_id: int
    precondition: Precondition | None = None
    may_administer: bool = True
    stored_bytes: int = 0


Edit = Update | Delete
Write = Create | Edit


class WriteResult(NamedTuple):
    """Outcome of a write.

    Attributes:
        product: its JSON members after the write; those before it, if it was deleted.
        change: the write's own change; if it changed nothing, a change that the product includes.
        replayed: whether an earlier request with the same idempotency key did the write.
        batch_position: the last position of the transaction, which other writes may share; None if
            the write took no position.
    """

    product: dict[str, Any]
    change: ChangeId
    replayed: bool = False
    batch_position: int | None = None


class LockedElsewhere(Exception):
    """Outcome of an edit whose product another transaction has locked."""


class BatchFull(Exception):
    """Outcome of an edit whose product is too long for what is left of its batch.

    Attributes:
        stored_bytes: size of the product's texts in UTF-8, all of whose words the edit replaces.
    """

    def __init__(self, stored_bytes: int) -> None:
        super().__init__()
        self.stored_bytes = stored_bytes


Outcome = WriteResult | CatalogError | LockedElsewhere | BatchFull


def characters_of(write: Write) -> int:
    """Return the size of a write: the texts that it sends, and the words or texts it replaces.

    Characters, but bytes for texts that are stored already.
    """
    if isinstance(write, Create):
        new_product = write.new_product
        return (
            len(new_product.name)
            + len(new_product.description or "")
            + len(new_product.words or "")
        )
    if isinstance(write, Update):
        sent = sum(len(value) for value in write.values.values() if isinstance(value, str))
        return sent + write.stored_bytes
    return write.stored_bytes
