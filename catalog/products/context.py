"""What the running app holds for products, typed."""

from dataclasses import dataclass, field

from quart import Quart, current_app

from catalog.concurrency.capacity_limiter import CapacityLimiter
from catalog.concurrency.group_commit import GroupCommit
from catalog.products.bulk.exporting import MAX_EXPORTS
from catalog.products.bulk.importing import MAX_IMPORTS
from catalog.products.changes.feed import Feed
from catalog.products.listing.page_cache import Pages
from catalog.products.service import Create, WriteResult

_EXTENSION = "catalog.products"


@dataclass(frozen=True, slots=True)
class Products:
    """One app's pages, writer of new products, feed of what happens to all, and places for bulk."""

    pages: Pages
    creates: GroupCommit[Create, WriteResult]
    feed: Feed
    imports: CapacityLimiter = field(
        default_factory=lambda: CapacityLimiter(
            MAX_IMPORTS, "Too many imports are running.", "imports"
        )
    )
    exports: CapacityLimiter = field(
        default_factory=lambda: CapacityLimiter(
            MAX_EXPORTS, "Too many exports are running.", "exports"
        )
    )


def attach(app: Quart, products: Products) -> None:
    """Attach it to an app; once, when the app is made."""
    app.extensions[_EXTENSION] = products


def products(app: Quart | None = None) -> Products:
    """That of the given app, or of the one handling this request."""
    held: Products = (app or current_app).extensions[_EXTENSION]
    return held
