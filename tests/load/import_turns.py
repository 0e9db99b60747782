"""Imports over HTTP, compared with LOAD DATA of the same products into the same tables.

Starts the service on a database that may be filled, and imports the same products as NDJSON and as
CSV, in chunks and atomically, in turns with ``LOAD DATA LOCAL INFILE``. That fills the tables that
an import fills, with all their indexes: products, search tokens and change log, with the counter of
the changes, in one transaction. Its files hold what the service computes: ids, tokens, positions.
The order of the turns is reversed in every other round, so that neither side always finds the
smaller tables.

    python -m tests.load.import_turns --url mysql://root@127.0.0.1:3306/catalog

The server needs ``local_infile=ON``, the default of MariaDB.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiomysql
import click
from sqlalchemy import URL

from catalog.products.changes.change_ids import new_token
from catalog.products.models import NewProduct
from catalog.products.search.tokenizer import text_of, tokens_of
from catalog.products.seed_data import make_samples
from catalog.settings import parse_database_url
from tests.load.processes import cpu_seconds
from tests.load.transfer import FORMATS, TEXT, Outcome, Service, serving

LOAD_DATA = "LOAD DATA"
_AT = "2026-11-23 09:30:00.123456"
_OWNER = 1

# In the default format of LOAD DATA: no sample holds a tab, a backslash or a line break.
_COLUMNS = {
    "products": "id, name, description, price, user_id, version, created_at, updated_at",
    "product_words": "rowid, words",
    "product_changes": "position, type, product_id, version, at, token",
}


@click.command()
@click.option("--url", required=True, help="DATABASE_URL of an empty database.")
@click.option("--rows", default=100_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--format", "forms", multiple=True, type=click.Choice(list(FORMATS)))
@click.option("--mode", "modes", multiple=True, type=click.Choice(["partial", "atomic"]))
@click.option("--database-pid", type=int, help="Of the database server, to tell its CPU time.")
def main(
    url: str,
    rows: int,
    rounds: int,
    workers: int,
    forms: tuple[str, ...],
    modes: tuple[str, ...],
    database_pid: int | None,
) -> None:
    """Measure and print a table in Markdown."""
    names = [
        f"{form}, {mode}"
        for form in forms or tuple(FORMATS)
        for mode in modes or ("partial", "atomic")
    ]
    with tempfile.TemporaryDirectory() as folder:
        turns = _Turns(parse_database_url(url), rows, Path(folder), database_pid)
        with serving(url, workers) as service:
            for number in range(rounds):
                order = [LOAD_DATA, *names]
                for name in order if number % 2 == 0 else reversed(order):
                    if name == LOAD_DATA:
                        turns.load()
                    else:
                        turns.import_(service, name)
        _report(turns.outcomes)


class _Turns:
    """Turns of one run.

    Args:
        url: of the database.
        rows: products of each turn.
        folder: of the files.
        database_pid: process of the database server, if known.
    """

    def __init__(self, url: URL, rows: int, folder: Path, database_pid: int | None) -> None:
        self.outcomes: dict[str, list[tuple[Outcome, float]]] = {}
        self._url = url
        self._rows = rows
        self._folder = folder
        self._database_pid = database_pid
        for name, form in FORMATS.items():
            writer = form.writer(TEXT)
            with (folder / name).open("wb") as file:
                file.write(writer.head())
                for products in self._samples():
                    rows_ = [(each.name, each.description, each.price) for each in products]
                    file.write(writer.write(rows_))

    def _samples(self) -> Iterator[list[NewProduct]]:
        return make_samples(self._rows, owner_ids=[_OWNER], seed=1)

    def _database_cpu(self) -> float:
        return cpu_seconds(self._database_pid) if self._database_pid else 0.0

    def _record(self, outcome: Outcome, used: float) -> None:
        found = (outcome, self._database_cpu() - used)
        self.outcomes.setdefault(outcome.name, []).append(found)
        click.echo(f"{outcome.name}: {outcome.rate:,.0f} rows/s", err=True)

    def import_(self, service: Service, name: str) -> None:
        """Import the products."""
        form, _, mode = name.partition(", ")
        used = self._database_cpu()
        query = "?atomic=true" if mode == "atomic" else ""
        outcome = service.import_file(self._folder / form, FORMATS[form], query)
        outcome.name = name
        self._record(outcome, used)

    def load(self) -> None:
        """Load the products by the database's own statement."""
        outcome, used = asyncio.run(self._load())
        self._record(outcome, used)

    async def _load(self) -> tuple[Outcome, float]:
        connection = await aiomysql.connect(
            host=self._url.host or "127.0.0.1",
            port=self._url.port or 3306,
            user=self._url.username,
            password=str(self._url.password or ""),
            db=self._url.database,
            local_infile=True,
        )
        async with connection.cursor() as cursor:
            await cursor.execute("SELECT COALESCE(MAX(id), 0) FROM products")
            (last_id,) = await cursor.fetchone()
            await cursor.execute("SELECT position FROM change_counter")
            (position,) = await cursor.fetchone()
            token = new_token()
            self._write_files(last_id, position, token)
            # The connections of the service have the same.
            await cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            used, began = self._database_cpu(), time.perf_counter()
            await cursor.execute("BEGIN")
            for table, columns in _COLUMNS.items():
                if table == "product_changes":
                    await cursor.execute(
                        "UPDATE change_counter SET position = %s, token = %s",
                        (position + self._rows, token),
                    )
                await cursor.execute(
                    f"LOAD DATA LOCAL INFILE '{self._folder / table}' INTO TABLE {table}"
                    f" CHARACTER SET utf8mb4 ({columns})"
                )
                if cursor.rowcount != self._rows:
                    raise click.ClickException(f"{cursor.rowcount} rows came into {table}.")
            await connection.commit()
            seconds = time.perf_counter() - began
        connection.close()
        return Outcome(LOAD_DATA, self._rows, seconds), used

    def _write_files(self, last_id: int, position: int, token: str) -> None:
        with (
            (self._folder / "products").open("w") as products,
            (self._folder / "product_words").open("w") as words,
            (self._folder / "product_changes").open("w") as changes,
        ):
            for samples in self._samples():
                for name, description, price, *_ in samples:
                    last_id, position = last_id + 1, position + 1
                    told = r"\N" if description is None else description
                    products.write(
                        f"{last_id}\t{name}\t{told}\t{price}\t{_OWNER}\t1\t{_AT}\t{_AT}\n"
                    )
                    words.write(f"{last_id}\t{tokens_of(text_of(name, description), last_id)}\n")
                    changes.write(f"{position}\tcreated\t{last_id}\t1\t{_AT}\t{token}\n")


def _report(outcomes: dict[str, list[tuple[Outcome, float]]]) -> None:
    loads = [each.rate for each, _ in outcomes[LOAD_DATA]]
    titles = ("transfer", "rows/s", "of LOAD DATA", "service CPU µs/row", "database CPU µs/row")
    click.echo(f"| {' | '.join(titles)} |")
    click.echo("|---" * len(titles) + "|")
    for name, turns in outcomes.items():
        ratios = [each.rate / load for (each, _), load in zip(turns, loads, strict=True)]
        cells = (
            name,
            f"{statistics.median(each.rate for each, _ in turns):,.0f}",
            f"{statistics.median(ratios):.2f}",
            f"{_cpu([(each.cpu_seconds or 0.0) / each.rows for each, _ in turns])}",
            f"{_cpu([used / each.rows for each, used in turns])}",
        )
        click.echo(f"| {' | '.join(cells)} |")


def _cpu(seconds: list[float]) -> str:
    median = statistics.median(seconds)
    return f"{median * 1e6:.1f}" if median else ""


if __name__ == "__main__":
    main()
