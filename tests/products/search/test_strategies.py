"""Strategies of searches: whatever the planner estimates, it finds the same products."""

from collections.abc import Sequence
from itertools import product as combinations
from typing import Any, NamedTuple

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.database import Database
from catalog.products import queries
from catalog.products.schemas import Sort
from catalog.products.search import planner
from catalog.products.search.frequencies import Terms, counted, sampled, unknown
from catalog.products.search.tokenizer import BUCKETS, buckets_between, terms_of, text_of, tokens_of
from catalog.products.selection import Position, Selection
from tests.db.support import run_on
from tests.load.search_data import make_products
from tests.load.search_queries import REFERENCE
from tests.products.search.filling import fill
from tests.support import Caller

COUNT = 600
STEP = 7_001
"""Distance of the ids, so that the products are in all buckets."""

SORTS: tuple[Sort, ...] = ("-id", "price", "-created_at")

STRATEGIES = {
    "as estimated": {},
    "scans": {"_SCANNED_BY_ID": 0.0, "_SCANNED_BY_KEY": 0.0},
    "index": {"_LOOKED_UP": 0.0, "_FOUND_BY_ID": 0.0, "_FOUND_BY_KEY": 0.0, "_BUCKET": 0.0},
}
"""Costs of the planner that make it prefer one plan."""


class Stored(NamedTuple):
    """Product in the database."""

    id: int
    price: float
    created_at: Any
    user_id: int
    text: str

    def matches(self, terms: Sequence[str]) -> bool:
        """Tell whether each term begins one of the product's words."""
        return all(term in self.text for term in terms)


@pytest.fixture
async def stored(ada: Caller, bob: Caller, database: Database) -> list[Stored]:
    """Insert products with common and rare words; return them oldest first."""
    assert ada.user_id
    assert bob.user_id
    products: list[Stored] = []
    rows: list[dict[str, Any]] = []
    words: list[dict[str, Any]] = []
    new_products = make_products(COUNT, owner_ids=[ada.user_id, bob.user_id, ada.user_id])
    for number, each in enumerate(new for chunk in new_products for new in chunk):
        product_id = 1 + number * STEP
        text = text_of(each.name, each.description)
        product = Stored(product_id, each.price, each.created_at, each.owner_id, text)
        products.append(product)
        texts = {"name": each.name, "description": each.description}
        rows.append({**product._asdict(), **texts})
        del rows[-1]["text"]
        words.append({"product_id": product_id, "words": tokens_of(text, product_id)})

    await fill(database, rows, words)
    return products


def ordered(products: Sequence[Stored], selection: Selection) -> list[int]:
    """Return the ids of the products that a selection should yield, in its order."""

    def is_kept(each: Stored) -> bool:
        lowest, highest, owner = selection.min_price, selection.max_price, selection.user_id
        return (
            each.matches(selection.terms)
            and (lowest is None or each.price >= lowest)
            and (highest is None or each.price <= highest)
            and (owner is None or each.user_id == owner)
        )

    kept = sorted(
        filter(is_kept, products),
        key=lambda each: (getattr(each, selection.sort_column), each.id),
        reverse=selection.sort.startswith("-"),
    )
    return [each.id for each in kept]


async def walk(database: Database, selection: Selection, limit: int = 150) -> list[int]:
    """Return the ids of all pages of a search."""
    ids: list[int] = []
    after: Position | None = None
    while True:
        rows = await run_on(
            database.connection(),
            planner.find,
            selection,
            after=after,
            limit=limit,
            max_bytes=queries.PAGE_BYTES,
        )
        products = [queries.members_of(row) for row in rows]
        ids += [product["id"] for product in products]
        if len(products) < limit:
            return ids
        after = selection.position_of(products[-1])


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches take one strategy, whatever the words."""
    for name, cost in STRATEGIES[request.param].items():
        monkeypatch.setattr(planner, name, cost)
    # Smaller than the table, so that searches go on behind the sample.
    monkeypatch.setattr(planner, "NEAR", 20)
    monkeypatch.setattr(planner, "FEW", 20)


class TestStrategies:
    @pytest.mark.usefixtures("strategy")
    async def test_every_strategy_finds_the_same_products(
        self, stored: list[Stored], database: Database
    ) -> None:
        counts = []
        for q, sort in combinations(REFERENCE.values(), SORTS):
            selection = Selection(sort=sort, terms=terms_of(q))
            expected = ordered(stored, selection)
            assert await walk(database, selection) == expected, (q, sort)
            counts.append(len(expected))

        assert max(counts) > COUNT // 3
        assert 0 in counts
        assert 1 in counts

    @pytest.mark.usefixtures("strategy")
    async def test_filters_narrow_every_strategy(
        self,
        ada: Caller,
        stored: list[Stored],
        database: Database,
    ) -> None:
        for q, sort in combinations(("brass", "walnut brass", "handmade indoor"), SORTS):
            for filters in (
                {"min_price": 200.0, "max_price": 700.0},
                {"user_id": ada.user_id},
                {"user_id": ada.user_id, "max_price": 800.0},
            ):
                selection = Selection(sort=sort, terms=terms_of(q), **filters)
                expected = ordered(stored, selection)
                assert await walk(database, selection) == expected, (q, sort, filters)
                total = await run_on(database.connection(), planner.count, selection)
                assert total == len(expected)

    async def test_words_that_are_not_checked_find_too_much(
        self, stored: list[Stored], database: Database
    ) -> None:
        """Control: the comparison notices a strategy that looks up the rarest word only."""
        selection = Selection(terms=terms_of("handmade brass"))
        rarest = Selection(terms=terms_of("brass"))

        found = await walk(database, rarest)

        assert set(found) > set(ordered(stored, selection))
        assert await walk(database, selection) == ordered(stored, selection)


class TestFrequencies:
    async def test_rare_word_is_looked_up_and_common_words_are_checked(
        self, stored: list[Stored], database: Database
    ) -> None:
        terms = terms_of("handmade indoor zircon classic")

        async def rank(connection: AsyncConnection) -> tuple[Terms, float]:
            near = await sampled(connection, terms, last_id=stored[-1].id)
            ids = (stored[0].id, stored[-1].id)
            return await counted(connection, near, ids=ids, together=True)

        ranked, joint = await run_on(database.connection(), rank)

        assert ranked.ordered[0] == "_zircon"
        assert ranked.indexed == 1
        assert ranked.sought_in(["00", "01"], 1) == [["00_zircon", "01_zircon"]]
        assert 0 < joint < ranked.shares[0] < 0.05
        for term, share in zip(ranked.ordered[1:], ranked.shares[1:], strict=True):
            exact = sum(each.matches([term]) for each in stored) / COUNT
            assert share == pytest.approx(exact, abs=0.1), term

    async def test_words_of_similar_frequency_are_looked_up_together(
        self, stored: list[Stored], database: Database
    ) -> None:
        terms = terms_of("indoor outdoor")

        ranked = await run_on(database.connection(), sampled, terms, last_id=stored[-1].id)

        assert ranked.indexed == 2
        assert len(buckets_between(stored[0].id, stored[-1].id)) == BUCKETS

    def test_terms_of_unknown_frequency_are_ranked_by_length(self) -> None:
        assert unknown(("_b", "_lamp", "_oak")).ordered == ("_lamp", "_oak", "_b")
