"""The app's state for products."""

from dataclasses import dataclass, field

from catalog.concurrency.capacity_limiter import CapacityLimiter
from catalog.http.context import AppExtension
from catalog.products.bulk.exporting import MAX_EXPORTS
from catalog.products.bulk.importing import MAX_IMPORTS
from catalog.products.changes.change_reader import ChangeReader
from catalog.products.changes.feed import Feed
from catalog.products.listing.page_cache import PageCache
from catalog.products.listing.page_request import PageRequests
from catalog.products.listing.product_reader import ProductReader
from catalog.products.overload import too_many
from catalog.products.writes import BatchedWrites


@dataclass(frozen=True, slots=True)
class Products:
    """State of one app: readers of pages and products, batched writes, change feed, bulk limits."""

    page_requests: PageRequests
    page_cache: PageCache
    product_reader: ProductReader
    change_reader: ChangeReader
    writes: BatchedWrites
    feed: Feed
    imports: CapacityLimiter = field(
        default_factory=lambda: CapacityLimiter(
            MAX_IMPORTS, too_many("Too many imports are running.", "imports")
        )
    )
    exports: CapacityLimiter = field(
        default_factory=lambda: CapacityLimiter(
            MAX_EXPORTS, too_many("Too many exports are running.", "exports")
        )
    )


products = AppExtension[Products]("catalog.products")
