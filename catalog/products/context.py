"""What the running app holds for products, typed."""

from dataclasses import dataclass

from quart import Quart, current_app

from catalog.products.feed import Feed
from catalog.products.service import Create, Written
from catalog.products.writer import Writer

_EXTENSION = "catalog.products"


@dataclass(frozen=True, slots=True)
class Products:
    """One app's writer of new products, and its feed of what happens to all."""

    creates: Writer[Create, Written]
    feed: Feed


def hold(app: Quart, products: Products) -> None:
    """Attach it to an app; once, when the app is made."""
    app.extensions[_EXTENSION] = products


def products(app: Quart | None = None) -> Products:
    """That of the given app, or of the one handling this request."""
    held: Products = (app or current_app).extensions[_EXTENSION]
    return held
