"""What the running app holds for products, typed."""

from dataclasses import dataclass, field

from quart import Quart, current_app

from catalog.products.feed import Feed
from catalog.products.pages import Pages
from catalog.products.service import Create, Written
from catalog.products.transfer import MAX_EXPORTS, MAX_IMPORTS, Places
from catalog.products.writer import Writer

_EXTENSION = "catalog.products"


@dataclass(frozen=True, slots=True)
class Products:
    """One app's pages, writer of new products, feed of what happens to all, and places for bulk."""

    pages: Pages
    creates: Writer[Create, Written]
    feed: Feed
    imports: Places = field(
        default_factory=lambda: Places(MAX_IMPORTS, "Too many imports are running.", "imports")
    )
    exports: Places = field(
        default_factory=lambda: Places(MAX_EXPORTS, "Too many exports are running.", "exports")
    )


def hold(app: Quart, products: Products) -> None:
    """Attach it to an app; once, when the app is made."""
    app.extensions[_EXTENSION] = products


def products(app: Quart | None = None) -> Products:
    """That of the given app, or of the one handling this request."""
    held: Products = (app or current_app).extensions[_EXTENSION]
    return held
