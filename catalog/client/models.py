"""Responses of the service as frozen objects. Fields that a later release adds are ignored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NotRequired, Self, TypedDict

Sort = Literal["id", "-id", "name", "-name", "price", "-price", "created_at", "-created_at"]
"""Sort orders of a list; ``-`` means descending."""

Scope = Literal["read", "write"]
"""Operations that an API key is for."""


class NewProduct(TypedDict):
    """A product to create.

    Attributes:
        key: the owner's own name of it, unique among the owner's products.
    """

    name: str
    price: float
    description: NotRequired[str | None]
    key: NotRequired[str | None]


class UpsertedProduct(TypedDict, total=False):
    """A product to change or, if there is none with this key, to create.

    Attributes:
        id: the product to change.
        key: the owner's own name of it.
        version: the version that it must still have.
    """

    id: int
    key: str | None
    version: int
    name: str
    price: float
    description: str | None


UploadLine = NewProduct | UpsertedProduct


class ProductChanges(TypedDict, total=False):
    """Fields of a product to change; those left out stay as they are."""

    name: str
    price: float
    description: str | None
    key: str | None


@dataclass(frozen=True, slots=True)
class Product:
    """A product.

    Attributes:
        key: the owner's own name of it.
        etag: its entity tag, if it was read, created or changed by itself; lists have none.
    """

    id: int
    name: str
    description: str | None
    price: float
    user_id: int
    version: int
    created_at: datetime
    updated_at: datetime
    key: str | None = None
    etag: str | None = field(default=None, compare=False)

    @classmethod
    def from_json(cls, members: Mapping[str, Any], etag: str | None = None) -> Self:
        """Return the product of a JSON object."""
        return cls(
            id=members["id"],
            name=members["name"],
            description=members["description"],
            price=members["price"],
            user_id=members["user_id"],
            version=members["version"],
            created_at=datetime.fromisoformat(members["created_at"]),
            updated_at=datetime.fromisoformat(members["updated_at"]),
            key=members.get("key"),
            etag=etag,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """A change to a product.

    Attributes:
        change: the change's id, for ``follow(since=…)``; None within a response of many, but for
            the last one of it.
        product: the product as it is now; None if this or a later change deleted it.
    """

    position: int
    type: Literal["created", "updated", "deleted"]
    id: int
    version: int
    at: datetime
    product: Product | None
    change: str | None = None

    @classmethod
    def from_json(cls, members: Mapping[str, Any], change: str | None = None) -> Self:
        """Return the change of a JSON object."""
        product = members["product"]
        return cls(
            position=members["position"],
            type=members["type"],
            id=members["id"],
            version=members["version"],
            at=datetime.fromisoformat(members["at"]),
            product=None if product is None else Product.from_json(product),
            change=change,
        )


@dataclass(frozen=True, slots=True)
class Account:
    """The caller's account."""

    id: int
    username: str
    email: str
    role: str

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Self:
        """Return the account of a JSON object."""
        return cls(members["id"], members["username"], members["email"], members["role"])


@dataclass(frozen=True, slots=True)
class Key:
    """An API key.

    Attributes:
        key: the key itself; only in the response that created it.
    """

    id: int
    name: str
    prefix: str
    scope: Scope
    expires_at: datetime | None
    last_used_at: datetime | None
    key: str | None = field(default=None, repr=False)

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Self:
        """Return the key of a JSON object."""
        return cls(
            id=members["id"],
            name=members["name"],
            prefix=members["prefix"],
            scope=members["scope"],
            expires_at=_instant(members["expires_at"]),
            last_used_at=_instant(members["last_used_at"]),
            key=members.get("key"),
        )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class LineError:
    """An error in a line of an upload; the first line is 1."""

    line: int
    code: str
    message: str
    pointer: str | None = None


@dataclass(frozen=True, slots=True)
class UploadReport:
    """Outcome of an upload.

    Attributes:
        created: products that were created.
        updated: products that were changed, by ``mode="upsert"``.
        unchanged: products that were as sent already.
        failed: lines that were refused.
        errors: the first errors of these.
    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    errors: Sequence[LineError] = ()

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Self:
        """Return the report of a JSON object."""
        errors = [
            LineError(each["line"], each["code"], each["message"], each.get("pointer"))
            for each in members["errors"]
        ]
        return cls(
            created=members["created"],
            updated=members.get("updated", 0),
            unchanged=members.get("unchanged", 0),
            failed=members["failed"],
            errors=errors,
        )

    def plus(self, other: "UploadReport", *, first_line: int) -> "UploadReport":
        """Return the sum with the report on a later part of the upload.

        Args:
            other: the report on that part.
            first_line: lines before that part.
        """
        moved = [
            LineError(each.line + first_line, each.code, each.message, each.pointer)
            for each in other.errors
        ]
        return UploadReport(
            self.created + other.created,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.failed + other.failed,
            [*self.errors, *moved],
        )
