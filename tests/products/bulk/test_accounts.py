"""Imports for an account that is gone: another process may have deleted it a moment ago."""

from collections.abc import AsyncIterator

import pytest

from catalog.db.database import Database
from catalog.errors import AccountUnavailable
from catalog.products.bulk.formats import NDJSON
from catalog.products.bulk.formats.format import ReaderOptions
from catalog.products.bulk.importing import import_products
from tests.db.support import count_products, run_on
from tests.products.bulk.sending import lines_of

UNKNOWN_OWNER = 999


@pytest.mark.parametrize("upsert", [False, True])
@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("atomic", [False, True])
async def test_no_product_is_created(
    database: Database, atomic: bool, dry_run: bool, upsert: bool
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield lines_of(3)

    with pytest.raises(AccountUnavailable):
        await import_products(
            database,
            pieces(),
            NDJSON.reader(ReaderOptions(upsert=upsert)),
            owner_id=UNKNOWN_OWNER,
            atomic=atomic,
            dry_run=dry_run,
            upsert=upsert,
        )

    assert await run_on(database.connection(), count_products) == 0


async def test_trial_is_refused_before_its_body_is_read(database: Database) -> None:
    read = []

    async def pieces() -> AsyncIterator[bytes]:
        read.append("piece")
        yield lines_of(3)

    with pytest.raises(AccountUnavailable):
        await import_products(
            database, pieces(), NDJSON.reader(), owner_id=UNKNOWN_OWNER, dry_run=True
        )

    assert read == []
