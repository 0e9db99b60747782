"""HTTP in and out: lists of products, one product, and what has happened to them."""

from catalog.products.bulk.formats import FORMATS
from catalog.products.routes import changes, lists, products
from catalog.products.schemas import PATH

blueprints = (changes.blueprint, lists.blueprint, products.blueprint)

STREAMED = {PATH: FORMATS}
"""Paths that take bodies of any size, and of which media types."""

WAITING = changes.PATH
"""Where requests wait on purpose."""
