"""HTTP in and out: lists of products, one product, and what has happened to them."""

from catalog.products.routes import changes, lists, products

blueprints = (changes.blueprint, lists.blueprint, products.blueprint)
