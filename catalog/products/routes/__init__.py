"""HTTP in and out: lists of products, and one product."""

from catalog.products.routes import lists, products

blueprints = (lists.blueprint, products.blueprint)
