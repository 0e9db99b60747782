"""Frequencies of search terms: an estimate of how many products have each of them.

They decide which terms are looked up in the full-text index. Looking up a term costs a microsecond
for each product that has it, so ``handmade zircon`` takes half a second if both words are looked
up, and a millisecond if ``zircon`` is, and ``handmade`` is checked on the products found.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.products import queries
from catalog.products.search.tokenizer import bucket_of, buckets_between

SAMPLE = 500
"""Products that are read to estimate frequencies; that takes half a millisecond."""

MAX_INDEXED = 4
"""Terms that are looked up in the full-text index at most."""

SIMILAR = 4
"""How many times as common as the rarest term another one may be to be looked up, too. Looking up
a product costs about a quarter of checking it."""

_COMMON = 0.05
"""Share from which the sample is exact enough; counting in the index would take milliseconds."""

_COUNTED_BUCKETS = 2


class Terms(NamedTuple):
    """Terms of a search, the rarest first.

    Attributes:
        ordered: the terms.
        shares: the estimated fraction of all products that have each of them.
    """

    ordered: tuple[str, ...]
    shares: tuple[float, ...]

    @classmethod
    def ranked(cls, shares: dict[str, float]) -> "Terms":
        """Rank terms by their shares, and equally common ones by length: longer ones are rarer."""
        ordered = sorted(shares, key=lambda term: (shares[term], -len(term), term))
        return cls(tuple(ordered), tuple(shares[term] for term in ordered))

    @property
    def indexed(self) -> int:
        """Number of terms to look up in the full-text index; they come first."""
        limit = self.shares[0] * SIMILAR
        return sum(share <= limit for share in self.shares[:MAX_INDEXED])

    @property
    def values(self) -> dict[str, str]:
        """Bind parameters of the statements that check terms on rows."""
        return {f"term_{number}": term for number, term in enumerate(self.ordered)}

    def sought_in(self, buckets: Sequence[str], indexed: int) -> list[list[str]]:
        """Return the argument of ``matches`` that looks the first terms up in some buckets."""
        return [[f"{bucket}{term}" for bucket in buckets] for term in self.ordered[:indexed]]


def unknown(terms: Sequence[str]) -> Terms:
    """Return terms of unknown frequencies."""
    return Terms.ranked(dict.fromkeys(terms, 1.0))


async def sampled(connection: AsyncConnection, terms: Sequence[str], *, last_id: int) -> Terms:
    """Estimate frequencies from the products whose ids end with ``last_id``."""
    values: dict[str, Any] = unknown(terms).values
    ordered = values.values()
    statement = queries.sample(terms=len(values))
    count, *found = (
        await connection.execute(statement, {**values, "last_id": last_id, "limit": SAMPLE})
    ).one()
    # Plus one half, because words without a match in the sample may still occur.
    shares = {
        term: min(1.0, (int(hits) + 0.5) / max(int(count), 1))
        for term, hits in zip(ordered, found, strict=True)
    }
    return Terms.ranked(shares)


async def counted(
    connection: AsyncConnection, terms: Terms, *, ids: tuple[int, int], together: bool
) -> tuple[Terms, float]:
    """Refine the frequencies of rare terms by counting them in some buckets of the index.

    Args:
        connection: the connection to read on.
        terms: terms with the frequencies in a sample.
        ids: the range of all products' ids.
        together: whether to count the products that have all rare terms, too.

    Returns:
        the terms, and the estimated fraction of products that have all of them; without
        ``together`` an upper bound.
    """
    shares = dict(zip(terms.ordered, terms.shares, strict=True))
    rare = [term for term, share in shares.items() if share < _COMMON][:MAX_INDEXED]
    joint = 1.0
    if rare:
        searches = [[term] for term in rare]
        if together and len(rare) > 1:
            searches.append(rare)
        buckets = _buckets(ids)
        values = {
            f"sought_{number}": [[f"{bucket}{term}" for bucket in buckets] for term in search]
            for number, search in enumerate(searches)
        }
        found = (await connection.execute(queries.counts(len(searches)), values)).one()
        size = (ids[1] - ids[0] + 1) * len(buckets) / len(buckets_between(*ids))
        estimates = [min(1.0, (int(hits) + 0.5) / size) for hits in found]
        shares |= dict(zip(rare, estimates, strict=False))
        joint = min(estimates)
    for term, share in shares.items():
        # Common words are taken to be independent of others.
        joint *= 1.0 if term in rare else share
    return Terms.ranked(shares), joint


def _buckets(ids: tuple[int, int]) -> tuple[str, ...]:
    """Return evenly distributed buckets; never the newest alone, which may be almost empty."""
    first, last = ids
    step = (last - first) // (_COUNTED_BUCKETS + 1)
    places = (first + step * number for number in range(1, _COUNTED_BUCKETS + 1))
    return tuple(dict.fromkeys(map(bucket_of, places)))
