"""Settled pages: named as unaffected by products that are created."""

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.database import Database
from catalog.products.changes.change_counter import LATE_IDS
from catalog.products.models import ChangeCounter, Product, ProductChange
from tests.support import Caller

PATH = "/api/products"


class TestSettledPages:
    async def test_pages_far_below_the_highest_id_and_products_are_named(
        self, ada: Caller, anyone: Caller
    ) -> None:
        await ada.import_products(LATE_IDS + 9)
        ids = [each["id"] for each in (await anyone.get(f"{PATH}?sort=id")).json["products"]]
        page = f"{PATH}?limit={LATE_IDS}"
        first = await anyone.get(page)
        # Behind the product with the tenth id.
        second = await anyone.get(first.json["next"].replace(f"limit={LATE_IDS}", "limit=1"))
        third = await anyone.get(second.json["next"])
        upwards = await anyone.get(f"{PATH}?limit=3&sort=id")
        last = await anyone.get(f"{PATH}?limit=1000&sort=-id&ids={ids[8]}")
        priced = await anyone.get(f"{PATH}?limit=3&sort=price")
        total = await anyone.get(f"{third.json['next']}&total=true")
        product = await anyone.get(f"{PATH}/{ids[0]}")
        missing = await anyone.get(f"{PATH}/{ids[0] + 10**6}")

        assert second.json["products"][0]["id"] == ids[8]
        answers = (first, second, third, upwards, last, priced, total, product, missing)
        named = [each.headers.get("Catalog-Unaffected-By") for each in answers]
        created = "created"
        assert named == [None, None, created, created, created, None, None, created, None]
        marked = [each.json["next_cursor"].startswith(".") for each in (first, second, third)]
        assert marked == [False, True, True]
        # Composed of known products, and kept.
        for _ in range(3):
            again = await anyone.get(second.json["next"].replace("limit=1", "limit=2"))
            assert again.headers["Catalog-Unaffected-By"] == "created"
        # Caches take the mark for a hint, and any other mark is refused.
        unmarked = await anyone.get(second.json["next"].replace("cursor=.", "cursor="))
        assert unmarked.json["products"] == third.json["products"]
        refused = await anyone.get(second.json["next"].replace("cursor=.", "cursor=.."))
        assert refused.status_code == 400

    async def test_page_behind_a_cursor_above_all_products_is_not(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        await ada.import_products(LATE_IDS + 9)
        oldest = (await anyone.get(f"{PATH}?limit=2&sort=id")).json["products"]
        first = await anyone.get(f"{PATH}?limit={LATE_IDS}")
        behind = (await anyone.get(first.json["next"].replace(f"{LATE_IDS}", "1"))).json["next"]

        async def restore(session: AsyncSession) -> None:
            """Return to an earlier state, as a backup does."""
            kept = oldest[1]["id"]
            await session.execute(delete(Product).where(Product.id > kept))
            await session.execute(delete(ProductChange).where(ProductChange.position > 2))
            values = {"position": 2, "taken_position": 2, "highest_id": kept}
            await session.execute(update(ChangeCounter).values(values))

        await database.transaction(restore)

        page = await anyone.get(behind)
        assert page.json["products"] == [oldest[1]]
        assert "Catalog-Unaffected-By" not in page.headers
