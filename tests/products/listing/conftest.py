"""Fixtures of lists: a filled catalog, and what another process has cached of it."""

import pytest
from quart import Quart

from catalog.db.database import Database
from catalog.db.deadlines import Deadlines
from catalog.products import service
from catalog.products.models import NewProduct
from tests.db.support import Open
from tests.products.listing.other_process import Other
from tests.products.listing.reads import Reads
from tests.support import Caller


# Before the app, whose page cache keeps the function.
@pytest.fixture(autouse=True)
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
async def ids(database: Database, ada: Caller) -> list[int]:
    """Return the ids of 60 products, the newest first, as in the default order."""
    new_products = [NewProduct(f"Lamp {n}", None, float(n), ada.user_id or 0) for n in range(60)]
    inserted = await database.transaction(service.insert_products, new_products)
    return inserted.ids[::-1]


@pytest.fixture
def other(app: Quart, opened: Open) -> Other:
    # Reads may take long on a busy machine.
    return Other(app, opened(deadlines=Deadlines(checkout=60, read=30)))
