"""Products for tests of lists."""

from catalog.db.database import Database
from catalog.products import service
from catalog.products.models import NewProduct
from tests.support import Caller


async def fill(database: Database, owner: Caller) -> None:
    new_products = [
        NewProduct(f"Lamp {number}", None, 1.0, owner.user_id or 0) for number in range(20)
    ]
    await database.transaction(service.insert_products, new_products)
