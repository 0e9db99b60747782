"""Routes of products: lists, single products, bulk requests, and changes."""

from catalog.products.bulk.formats import IMPORTED
from catalog.products.routes import changes, lists, products
from catalog.products.schemas import PATH

blueprints = (changes.blueprint, lists.blueprint, products.blueprint)

STREAMED = {PATH: IMPORTED}
"""Paths that accept streamed bodies of any size, and their media types."""

WAITING = changes.PATH
"""Path whose requests are long-lived: long polls and event streams."""
