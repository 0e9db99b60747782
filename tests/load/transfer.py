"""Bulk import and export over HTTP, compared with the database's own bulk loading.

Starts the service on a database that may be filled, imports a file, exports everything, and prints
the rates, the growth of the workers, and on MySQL and MariaDB the ratio to
``LOAD DATA LOCAL INFILE`` and ``SELECT … INTO OUTFILE`` of the same rows in the same run. It
reports and skips statements that the server does not allow.

    python -m tests.load.transfer --url mysql://catalog:catalog@127.0.0.1:3306/catalog
"""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import aiomysql
import click
from sqlalchemy import URL, make_url

from catalog.products.bulk.formats import CSV, NDJSON, Format
from catalog.products.seed_data import make_samples
from tests.load.contestants import START_TIMEOUT_SECONDS
from tests.load.processes import cpu_seconds

FORMATS = {each.name: each for each in (NDJSON, CSV)}
PIECE_BYTES = 64 * 1024
MEGABYTE = 1_000_000
TEXT = ("name", "description", "price")
# In the default format of LOAD DATA: no sample holds a tab, a backslash or a line break.
DUMPED = "(name, description, price, user_id, version, created_at, updated_at)"


@dataclass
class Outcome:
    """One transfer.

    Attributes:
        size: bytes of the text.
        cpu_seconds: used by the service.
        grown: peak memory growth of a worker, in bytes.
    """

    name: str
    rows: int
    seconds: float
    size: int = 0
    cpu_seconds: float | None = None
    grown: int | None = None

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


@click.command()
@click.option("--url", required=True, help="DATABASE_URL of an empty database.")
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--format", "form", default="ndjson", type=click.Choice(list(FORMATS)))
@click.option("--workers", default=2, show_default=True)
def main(url: str, rows: int, form: str, workers: int) -> None:
    """Measure and print a table in Markdown."""
    format_ = FORMATS[form]
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        text, dump = Path(folder) / "products", Path(folder) / "dump"
        _write_files(text, dump, format_, rows)
        with serving(url, workers) as service:
            outcomes.append(service.import_file(text, format_))
            outcomes.append(service.export(format_))
        _check(outcomes)
        if make_url(url).get_backend_name() != "sqlite":
            outcomes += asyncio.run(_bulk_load(make_url(url), dump, rows))
    _report(outcomes)


def _write_files(text: Path, dump: Path, form: Format, rows: int) -> None:
    """Write the same products for an import and for the server's own bulk loading."""
    writer = form.writer(TEXT)
    with text.open("wb") as products, dump.open("wb") as dumped:
        products.write(writer.head())
        for new_products in make_samples(rows, owner_ids=[1], seed=1):
            products.write(writer.write([(o.name, o.description, o.price) for o in new_products]))
            at = "2026-11-23 09:30:00.123456"
            for new_product in new_products:
                values = (
                    new_product.name,
                    new_product.description,
                    new_product.price,
                    1,
                    1,
                    at,
                    at,
                )
                cells = [r"\N" if value is None else str(value) for value in values]
                dumped.write("\t".join(cells).encode() + b"\n")


class Service:
    """A running service, with an account that is logged in."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self._port = port
        self._token = ""

    def wait(self) -> None:
        """Wait until the service is ready; sign up an account."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                self._ask("GET", "/readyz").read()
                break
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise click.ClickException("The service does not start.") from None
                time.sleep(0.2)
        account = {"username": "loader", "email": "loader@example.com"}
        body = json.dumps({**account, "password": "correct horse battery staple"}).encode()
        answer = self._ask("POST", "/api/auth/signup", body, "application/json")
        self._token = json.load(answer)["access_token"]

    def _ask(self, method: str, path: str, body: Any = None, media_type: str = "") -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", self._port, blocksize=PIECE_BYTES)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        headers |= {"Accept": media_type} if method == "GET" and media_type else {}
        headers |= {"Content-Type": media_type} if method == "POST" else {}
        chunked = body is not None and not isinstance(body, bytes)
        connection.request(method, path, body, headers, encode_chunked=chunked)
        return connection.getresponse()

    def import_file(self, text: Path, form: Format, query: str = "") -> Outcome:
        """Import a file."""
        outcome = Outcome("import", 0, 0, text.stat().st_size)
        with text.open("rb") as file, self._measured(outcome):
            answer = self._ask("POST", f"/api/products{query}", file, form.media_type)
            told = json.load(answer)
        if answer.status != 200 or told["failed"]:
            raise click.ClickException(f"The import failed: {told}")
        outcome.rows = told["created"]
        return outcome

    def export(self, form: Format) -> Outcome:
        """Export all products."""
        outcome = Outcome("export", 0, 0)
        with self._measured(outcome):
            answer = self._ask("GET", "/api/products", media_type=form.media_type)
            while piece := answer.read1(PIECE_BYTES):
                outcome.size += len(piece)
                outcome.rows += piece.count(b"\n")
        outcome.rows -= form is CSV
        return outcome

    @contextmanager
    def _measured(self, outcome: Outcome) -> Iterator[None]:
        before = self._resident()
        largest = dict(before)
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.05):
                for pid, size in self._resident().items():
                    largest[pid] = max(largest.get(pid, 0), size)

        thread = threading.Thread(target=watch)
        thread.start()
        used = cpu_seconds(self._process.pid)
        began = time.perf_counter()
        try:
            yield
        finally:
            outcome.seconds = time.perf_counter() - began
            outcome.cpu_seconds = cpu_seconds(self._process.pid) - used
            over.set()
            thread.join()
        outcome.grown = max(largest[pid] - size for pid, size in before.items())

    def _resident(self) -> dict[str, int]:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        page = os.sysconf("SC_PAGE_SIZE")
        return {
            pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
            for pid in children.read_text().split()
        }


@contextmanager
def serving(url: str, workers: int) -> Iterator[Service]:
    """Run the service on a database for the duration of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--bind", f"127.0.0.1:{port}", "--workers", str(workers)]
    process = subprocess.Popen(
        [sys.executable, "-m", "catalog", "serve", *options],
        env={**os.environ, "DATABASE_URL": url, "JWT_SECRET_KEY": secrets.token_hex(32)},
        stdout=subprocess.DEVNULL,
    )
    service = Service(process, port)
    try:
        service.wait()
        yield service
    finally:
        process.terminate()
        process.wait(60)


def _check(outcomes: list[Outcome]) -> None:
    counts = {each.rows for each in outcomes}
    if len(counts) > 1:
        click.echo(f"NOTE: the transfers differ in rows: {counts}; was the database empty?")


async def _bulk_load(url: URL, dump: Path, rows: int) -> list[Outcome]:
    """Measure the server's own bulk loading of the same rows, into a copy of the table."""
    connection = await aiomysql.connect(
        host=url.host or "127.0.0.1",
        port=url.port or 3306,
        user=url.username,
        password=str(url.password or ""),
        db=url.database,
        local_infile=True,
        autocommit=True,
    )
    found = []
    async with connection.cursor() as cursor:
        await cursor.execute("CREATE TABLE products_loaded LIKE products")
        for name, measure in (("LOAD DATA", _load), ("INTO OUTFILE", _select_into_file)):
            try:
                seconds = await measure(cursor, dump)
                found.append(Outcome(name, rows, seconds))
            except aiomysql.MySQLError as error:
                hint = "needs local_infile=ON, secure_file_priv and the FILE privilege"
                click.echo(f"NOT MEASURED: {name}: {error.args[-1]} ({hint})")
        await cursor.execute("DROP TABLE products_loaded")
    connection.close()
    return found


async def _load(cursor: Any, dump: Path) -> float:
    began = time.perf_counter()
    await cursor.execute(
        f"LOAD DATA LOCAL INFILE '{dump}' INTO TABLE products_loaded CHARACTER SET utf8mb4 {DUMPED}"
    )
    return time.perf_counter() - began


async def _select_into_file(cursor: Any, _: Path) -> float:
    await cursor.execute("SELECT @@secure_file_priv")
    (folder,) = await cursor.fetchone()
    file = f"{(folder or '/tmp').rstrip('/')}/products-{secrets.token_hex(8)}"  # noqa: S108 (the server's)
    began = time.perf_counter()
    await cursor.execute(f"SELECT * FROM products ORDER BY id DESC INTO OUTFILE '{file}'")  # noqa: S608 (ours)
    return time.perf_counter() - began


def _report(outcomes: list[Outcome]) -> None:
    by_name = {each.name: each for each in outcomes}
    titles = ("transfer", "rows/s", "seconds", "MB", "CPU µs/row", "grown by MB", "of the server's")
    click.echo(f"| {' | '.join(titles)} |")
    click.echo("|---" * len(titles) + "|")
    for each in outcomes:
        own = by_name.get({"import": "LOAD DATA", "export": "INTO OUTFILE"}.get(each.name, ""))
        cells = (
            each.name,
            f"{each.rate:,.0f}",
            f"{each.seconds:.1f}",
            f"{each.size / MEGABYTE:.0f}" if each.size else "",
            "" if each.cpu_seconds is None else f"{each.cpu_seconds / max(each.rows, 1) * 1e6:.1f}",
            "" if each.grown is None else f"{each.grown / MEGABYTE:.1f}",
            f"{each.rate / own.rate:.2f}" if own else "",
        )
        click.echo(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
