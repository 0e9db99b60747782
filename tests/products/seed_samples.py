"""Products as ``catalog seed`` makes them."""

from datetime import datetime
from itertools import chain

from catalog.products.models import NewProduct
from catalog.products.seed_data import make_samples


def samples(count: int, *, seed: int = 0, owners: int = 10) -> list[NewProduct]:
    """Return products as the command makes them, with numbers as owners."""
    return list(chain(*make_samples(count, owner_ids=range(1, owners + 1), seed=seed)))


def times_of(made: list[NewProduct]) -> list[datetime]:
    """Return the creation times of products that have one."""
    return [sample.created_at for sample in made if sample.created_at is not None]
