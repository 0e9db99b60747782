"""The rules of the contract, by section."""

from catalog.conformance.rules import accounts, bulk, changes, everywhere, keys, lists, products

RULES = (
    *everywhere.section.rules,
    *accounts.section.rules,
    *keys.section.rules,
    *products.section.rules,
    *lists.section.rules,
    *bulk.section.rules,
    *changes.section.rules,
)
"""All rules, in the order in which they are checked."""
