"""Identifiers of changes: what they consist of, and the headers that carry them.

A position identifies a change in one history only. A restored backup begins another history, so
each transaction also draws a token, which is stored in its rows of the log and beside the count:
position and token together are a ``ChangeId`` (docs/adr/0018). The first half of the token, the
era, tells what lies between two changes: it stays as it is while products are only added above all
earlier ones, or not far below the highest one (docs/adr/0033).
"""

import secrets
from string import ascii_letters, digits
from typing import NamedTuple, Self

from catalog.products.models import TOKEN_LENGTH

ERA_LENGTH = 5
"""Characters at the beginning of a token: its era. Transactions that only create products above
all earlier ones, or little below, keep the era of the last change, and all others begin one. So two
changes of one era have the same older products between them, and the same pages of these."""

POSITION_HEADER = "Catalog-Position"
"""Header with a position: on reads, one that the content includes; on writes, the write's own."""

CHANGE_HEADER = "Catalog-Change"
"""Header with the same position and the token of its history."""

BATCH_HEADER = "Catalog-Batch-Position"
"""Header of a write that shared its transaction: the last position of that transaction."""

UNAFFECTED_HEADER = "Catalog-Unaffected-By"
"""Header of a read that no creation of products affects, within one era."""

_KINDS = ascii_letters + digits


class ChangeId(NamedTuple):
    """Identifier of a change in one history of the database: ``8.5f0c29a1be``.

    A position alone is ambiguous: a database restored from a backup reaches the same position
    again through other changes. The token tells them apart.

    Attributes:
        position: 1, 2, 3, … in commit order; 0 before the first change.
        token: of the transaction that made the change; empty in identifiers from releases without
            tokens, and at position 0, which is common to all histories.
    """

    position: int
    token: str = ""

    def __str__(self) -> str:
        """Format it as in the API."""
        return f"{self.position}.{self.token}" if self.token else str(self.position)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the output of ``str``, or a bare position; the caller has validated the text."""
        position, _, token = text.partition(".")
        return cls(int(position), token if int(position) else "")

    def may_be(self, other: "ChangeId") -> bool:
        """Tell whether both may be the same change; a bare position matches any token."""
        is_told = self.token and other.token
        return self.position == other.position and (not is_told or self.token == other.token)


def new_token() -> str:
    """Draw a random token; each transaction that changes products has one with its positions."""
    return "".join(secrets.choice(_KINDS) for _ in range(TOKEN_LENGTH))


def position_headers(change: ChangeId) -> dict[str, str]:
    """Return the headers that carry a change id."""
    return {POSITION_HEADER: str(change.position), CHANGE_HEADER: str(change)}


def read_headers(change: ChangeId) -> dict[str, str]:
    """Return the headers of a negotiated read that caches have to revalidate each time."""
    return {"Cache-Control": "no-cache", "Vary": "Accept", **position_headers(change)}
