"""Time of searches as multiples of a plain page, on a database with a million products.

Reads each of ``REFERENCE`` in several sort orders and with several filters, each time beside a
plain page at another depth in the same run, and prints a table of the ratios. Pages are read as
the service reads them, without HTTP and without its cache of pages, so that the ratios are those of
the database and not of what surrounds it.

    python -m tests.load.search_queries --url mysql://catalog:catalog@127.0.0.1:3306/catalog --fill
"""

import asyncio
import math
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import click
from sqlalchemy import func, select

from catalog.auth.models import User
from catalog.db.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.http.pagination import Cursors, Place
from catalog.products.listing.page_reader import read_pages
from catalog.products.listing.page_request import PageRequest
from catalog.products.models import Product
from catalog.products.schemas import PATH, MyListQuery, Sort
from catalog.products.search.tokenizer import terms_of
from catalog.products.selection import Position, Selection
from catalog.products.service import insert_products
from catalog.settings import parse_database_url
from tests.engines import migrate, settings_for
from tests.load.search_data import OWNERS, make_products

REFERENCE: Mapping[str, str] = {
    "no product": "zzyzx",
    "one product": "garnet",
    "50 products": "zircon",
    "a thousandth": "jade",
    "a hundredth": "brass",
    "a tenth": "walnut",
    "half": "handmade",
    "prefix of a common word": "han",
    "one letter": "b",
    "the oldest hundredth": "vintage",
    "the dear half": "luxury",
    "the cheap half": "thrifty",
    "two halves": "handmade classic",
    "two halves that never meet": "indoor outdoor",
    "four common words": "handmade classic indoor luxury",
    "two tenths that never meet": "walnut maple",
    "two hundredths": "brass copper",
    "two hundredths that never meet": "brass pewter",
    "two thousandths": "onyx amber",
    "two thousandths that never meet": "onyx opal",
    "two rare words": "zircon beryl",
    "two rare words that never meet": "zircon topaz",
    "half and a rare word": "handmade zircon",
    "half and a hundredth": "handmade brass",
    "a tenth and a hundredth": "walnut brass",
    "half and no product": "handmade zzyzx",
}
"""Searches, by how common their words are in the data of ``search_data``."""

SORTS: tuple[Sort, ...] = ("-id", "price", "-price", "name", "-created_at")

LIMIT = 100
_CURSORS = Cursors(b"benchmark")
_LONG_SECONDS = 0.5
"""Searches that take longer are measured once."""


def selections(owners: tuple[int, int]) -> dict[str, Selection]:
    """Return the sort orders and filters in which each search is measured.

    Args:
        owners: an account with a quarter of the products, and one with few.
    """
    shapes: dict[str, Selection] = {sort: Selection(sort=sort) for sort in SORTS}
    shapes |= {
        "100 ≤ price ≤ 200": Selection(min_price=100, max_price=200),
        "price, 100 ≤ price ≤ 200": Selection(sort="price", min_price=100, max_price=200),
        "large owner": Selection(user_id=owners[0]),
        "large owner, price": Selection(sort="price", user_id=owners[0]),
        "small owner": Selection(user_id=owners[1]),
    }
    return shapes


async def fill(database: Database, rows: int) -> None:
    """Insert accounts and products as an import does, words and change log included."""

    async def accounts(session: object) -> None:
        session.add_all(  # type: ignore[attr-defined]
            User(
                password_hash="",
                **dict.fromkeys(("username", "username_key"), f"owner{number}"),
                **dict.fromkeys(("email", "email_key"), f"owner{number}@example.com"),
            )
            for number in range(OWNERS)
        )

    await database.transaction(accounts)
    done = 0
    for chunk in make_products(rows, owner_ids=await _owner_ids(database)):
        await database.bulk_transaction(insert_products, chunk)
        done += len(chunk)
        click.echo(f"\r{done:,} products", nl=False, err=True)
    click.echo(err=True)


class Cell(NamedTuple):
    """Cell of the table, and its ratio to a plain page."""

    text: str
    ratio: float = 0.0


async def _owner_ids(database: Database) -> list[int]:
    async with database.connection() as connection:
        return list((await connection.scalars(select(User.id).order_by(User.id))).all())


async def middle(database: Database, selection: Selection) -> Position:
    """Return a keyset position in the middle of a list."""
    key = Product.__table__.c[selection.sort_column]
    async with database.connection() as connection:
        last_id = int(await connection.scalar(select(func.max(Product.id))) or 0)
        if selection.sort_column == "id":
            return (last_id // 2,)
        ordered = select(key, Product.id).order_by(key, Product.id).offset(last_id // 2).limit(1)
        row: Any = (await connection.execute(ordered)).one()
    value, product_id = row
    return (value.isoformat() if isinstance(value, datetime) else value, product_id)


async def seconds(
    database: Database, selection: Selection, after: Position | None
) -> tuple[float, int]:
    """Return how long a page takes, and the number of its products; infinity after the deadline."""
    cursor = _CURSORS.encode(list(after), bound_to=PATH) if after else None
    place = Place(_CURSORS, cursor, path=PATH, bound_to=PATH)
    request = PageRequest(MyListQuery(limit=LIMIT), selection, place, b"", None)
    begin = time.perf_counter()
    try:
        async with database.connection() as connection:
            begin = time.perf_counter()
            (page,) = await read_pages(connection, [request])
    except DatabaseUnavailable:
        return math.inf, 0
    return time.perf_counter() - begin, page.size


async def measure(
    database: Database, *, turns: int, only: str, shapes: str, deep: bool
) -> AsyncIterator[tuple[str, list[Cell]]]:
    """Yield a row for each search: its name, and a cell for each sort order and filter."""
    owner_ids = await _owner_ids(database)
    wanted = {
        name: selection
        for name, selection in selections((owner_ids[0], owner_ids[-1])).items()
        if shapes in name
    }
    yield "search", [Cell(name) for name in wanted]
    starts = {name: await middle(database, each) if deep else None for name, each in wanted.items()}
    plain_after = await middle(database, Selection())
    searches = {"(no search)": "", **{k: q for k, q in REFERENCE.items() if only in k}}
    for name, q in searches.items():
        cells = []
        for shape, selection in wanted.items():
            sought = replace(selection, terms=terms_of(q))
            plain, taken, size = [], [], 0
            for _ in range(turns):
                plain.append((await seconds(database, Selection(), plain_after))[0])
                duration, size = await seconds(database, sought, starts[shape])
                taken.append(duration)
                if duration > _LONG_SECONDS:
                    break
            ratio = statistics.median(taken) / statistics.median(plain)
            text = f"{ratio:.1f} ({statistics.median(taken) * 1e3:.1f} ms, {size})"
            cells.append(Cell(text, ratio if q else 0.0))
        yield name, cells


@click.command()
@click.option("--url", required=True, help="DATABASE_URL; with --fill, of an empty database.")
@click.option("--fill", "filling", is_flag=True, help="Migrate and insert the products first.")
@click.option("--rows", default=1_000_000, show_default=True, help="Products to insert.")
@click.option("--turns", default=5, show_default=True, help="Measurements, of which the median.")
@click.option("--only", default="", help="Measure only searches whose name contains this.")
@click.option("--shapes", default="", help="Measure only orders and filters that contain this.")
@click.option("--deep", is_flag=True, help="Begin in the middle of each list.")
def main(
    url: str, filling: bool, rows: int, turns: int, only: str, shapes: str, deep: bool
) -> None:
    """Measure, and print a table in Markdown."""

    async def run() -> None:
        address = parse_database_url(url)
        if filling:
            await migrate(address)
        database = Database(settings_for(address))
        try:
            if filling:
                await fill(database, rows)
            worst, is_head = 0.0, True
            table = measure(database, turns=turns, only=only, shapes=shapes, deep=deep)
            async for name, cells in table:
                click.echo(f"| {name} | {' | '.join(each.text for each in cells)} |")
                if is_head:
                    click.echo(f"|---|{'---|' * len(cells)}")
                is_head = False
                worst = max(worst, *(each.ratio for each in cells))
        finally:
            await database.close()
        click.echo(f"\nThe largest ratio: {worst:.1f}")

    asyncio.run(run())


if __name__ == "__main__":
    main()
