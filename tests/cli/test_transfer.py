"""``catalog import`` and ``catalog export``."""

import asyncio
import csv
import gzip
import json
import os
import pty
import signal
import stat
import tty
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest

from catalog.products.seed_data import make_samples
from tests.cli.commands import CommandLine
from tests.support import Caller

SAMPLES = 2_500
"""More than one batch of writes, and of reads."""


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Write a file of products."""
    file = tmp_path / "samples.ndjson"
    with file.open("w") as text:
        for new_products in make_samples(SAMPLES, owner_ids=[1], seed=5):
            for new_product in new_products:
                product = {"name": new_product.name, "price": new_product.price}
                text.write(json.dumps({**product, "description": new_product.description}) + "\n")
    return file


def lines_of(count: int) -> bytes:
    """Return products as NDJSON, each with a key."""
    return b"".join(b'{"name":"Lamp","price":1,"key":"sku-%d"}\n' % n for n in range(count))


async def until_created(catalog: CommandLine, count: int) -> None:
    """Wait until there are so many products."""
    async with asyncio.timeout(30):
        while await catalog.query("SELECT count(*) FROM products") != [(count,)]:
            await asyncio.sleep(0.05)


def said_in(text: str) -> list[tuple[str, str | None, float]]:
    """Return name, description and price of each product in an NDJSON text."""
    products = [json.loads(line) for line in text.splitlines()]
    return [(each["name"], each["description"], each["price"]) for each in products]


class TestRoundTrip:
    @pytest.mark.parametrize("form", ["ndjson", "csv"])
    async def test_exported_file_can_be_imported_again(
        self, catalog: CommandLine, ada: Caller, samples: Path, tmp_path: Path, form: str
    ) -> None:
        printed = await catalog.output_of("import", str(samples), "--owner", "ada")
        assert printed == "Created 2,500 products; 0 lines failed.\n"

        file = tmp_path / f"all.{form}"
        exported = await catalog.run("export", str(file))
        assert exported.exit_code == 0
        position, change = exported.stderr.splitlines()
        assert position == f"Catalog-Position: {SAMPLES}"
        assert change.startswith(f"Catalog-Change: {SAMPLES}.")
        await catalog.output_of("import", str(file), "--owner", "ada@example.com")

        again = await catalog.run("export", "--format", "ndjson")
        said = said_in(again.stdout)
        assert said[:SAMPLES] == said[SAMPLES:] == said_in(samples.read_text())
        (page,) = [(await ada.get("/api/products?limit=1&total=true")).json]
        assert page["total"] == 2 * SAMPLES
        assert page["products"][0]["user_id"] == ada.user_id

    async def test_edited_export_changes_products_once(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path
    ) -> None:
        for name in ("Lamp", "Rug", "Desk"):
            await ada.create_product(name)
        file = tmp_path / "all.csv"
        await catalog.run("export", str(file))
        file.write_text(file.read_text().replace("Rug", "Carpet") + ",Chair,,1,sku-1,,,,\r\n")
        arguments = ("import", str(file), "--owner", "ada", "--mode", "upsert")

        outcomes = [
            await catalog.output_of(*arguments, "--dry-run"),
            await catalog.output_of(*arguments),
            await catalog.output_of(*arguments),
        ]

        assert outcomes == [
            "Would create 1 product, update 1; 2 unchanged; 0 lines failed.\n",
            "Created 1 product, updated 1; 2 unchanged; 0 lines failed.\n",
            "Created 0 products, updated 0; 4 unchanged; 0 lines failed.\n",
        ]


class TestImport:
    async def test_faults_are_reported_by_line(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path
    ) -> None:
        file = tmp_path / "products.csv"
        file.write_text("name,price\nLamp,9.5\n,1\nStool,-1\nRug,120\n")

        result = await catalog.run("import", str(file), "--owner", "ada")

        assert result.exit_code == 1
        assert result.stdout == "Created 2 products; 2 lines failed.\n"
        assert result.stderr.splitlines() == [
            "Line 3: name must not be empty.",
            "Line 4: price must be at least 0.",
        ]
        names = [each["name"] for each in (await ada.get("/api/products")).json["products"]]
        assert names == ["Rug", "Lamp"]

    @pytest.mark.parametrize("option", ["--atomic", "--dry-run"])
    async def test_atomic_and_dry_run_with_faults_write_nothing(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path, option: str
    ) -> None:
        file = tmp_path / "products.ndjson"
        file.write_text('{"name": "Lamp", "price": 9.5}\n{"name": "Stool", "price": "x"}\n')

        result = await catalog.run("import", str(file), "--owner", "ada", option)

        assert result.exit_code == 1
        assert "Line 2: price must be a number." in result.stderr
        assert (await ada.get("/api/products")).json["products"] == []

    async def test_dry_run_reports_the_outcome(
        self, catalog: CommandLine, ada: Caller, samples: Path
    ) -> None:
        printed = await catalog.output_of("import", str(samples), "--owner", "ada", "--dry-run")

        assert printed == "Would create 2,500 products; 0 lines failed.\n"
        assert (await ada.get("/api/products")).json["products"] == []

    async def test_unknown_owner_and_format_are_reported(
        self, catalog: CommandLine, samples: Path, tmp_path: Path
    ) -> None:
        assert await catalog.faults_of("import", str(samples), "--owner", "nobody") == [
            "There is no such resource: There is no account 'nobody'."
        ]
        file = tmp_path / "products.txt"
        file.write_text("")
        result = await catalog.run("import", str(file), "--owner", "ada")
        assert result.exit_code == 2
        assert "--format ndjson or csv" in result.stderr

    async def test_unknown_column_is_reported(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path
    ) -> None:
        file = tmp_path / "products.csv"
        file.write_text("title,price\nLamp,9.5\n")

        faults = await catalog.faults_of("import", str(file), "--owner", str(ada and "ada"))

        assert "Line 1: title is not a known column." in faults

    @pytest.mark.parametrize("name", ["p.CSV", "p.csv.gz", "P.TSV.GZ", "p.jsonl", "p.ndjson.gz"])
    async def test_suffix_names_format_and_compression(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path, name: str
    ) -> None:
        text = b'{"name": "Lamp", "price": 9.5}\n'
        if "json" not in name:
            text = b"name\tprice\nLamp\t9,5\n"
        file = tmp_path / name
        file.write_bytes(gzip.compress(text) if name.lower().endswith(".gz") else text)

        printed = await catalog.output_of("import", str(file), "--owner", str(ada and "ada"))

        assert printed == "Created 1 product; 0 lines failed.\n"

    async def test_standard_input_is_read(self, catalog: CommandLine, ada: Caller) -> None:
        text = b"name,price\nLamp,1\nRug,x\n"

        result = await catalog.run_on(
            text, *("import", "-", "--format", "csv", "--owner", str(ada and "ada"))
        )

        assert result.stdout == "Created 1 product; 1 line failed.\n"
        assert result.stderr == "Line 3: price must be a number.\n"

    async def test_charset_is_decoded(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path
    ) -> None:
        file = tmp_path / "products.csv"
        file.write_bytes("name,price\nCafé,1\n".encode("windows-1252"))
        arguments = ("import", str(file), "--owner", str(ada and "ada"))

        (line, *_) = await catalog.faults_of(*arguments)
        await catalog.output_of(*arguments, "--charset", "Windows-1252")

        assert line.startswith("Line 2: The byte at offset 14 is not in the encoding utf-8.")
        assert (await ada.get("/api/products")).json["products"][0]["name"] == "Café"

    @pytest.mark.parametrize("damage", [slice(0, 40), slice(5, None)])
    async def test_damaged_gzip_is_reported(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path, damage: slice
    ) -> None:
        file = tmp_path / "products.csv.gz"
        file.write_bytes(gzip.compress(b"name,price\n" + b"Lamp,1\n" * 1000)[damage])

        faults = await catalog.faults_of("import", str(file), "--owner", str(ada and "ada"))

        assert "gzip" in faults[-1]

    @pytest.mark.parametrize("damage", ["cut", "checksum", "garbage"])
    async def test_damaged_end_of_gzip_reports_the_progress_of_the_import(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path, damage: str
    ) -> None:
        packed = gzip.compress(lines_of(5_000))
        ends = {"cut": packed[:-9], "checksum": packed[:-8] + bytes(8), "garbage": packed + b"gar"}
        file = tmp_path / "products.ndjson.gz"
        file.write_bytes(ends[damage])

        told, fault = await catalog.faults_of("import", str(file), "--owner", str(ada and "ada"))

        assert told == "Created 4,000 products, up to line 4,000."
        assert fault.endswith("The file is not valid gzip, or its end is missing or damaged.")
        assert await catalog.query("SELECT count(*) FROM products") == [(4_000,)]

    async def test_progress_bar_ends_before_the_report(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path
    ) -> None:
        file = tmp_path / "products.ndjson.gz"
        file.write_bytes(gzip.compress(lines_of(5_000))[:-9])
        terminal, its_end = pty.openpty()

        async with catalog.started(
            *("import", str(file), "--owner", str(ada and "ada")), standard_error=its_end
        ) as process:
            os.close(its_end)
            await process.communicate()

        shown = b""
        with suppress(OSError):
            while more := os.read(terminal, 1024):
                shown += more
        os.close(terminal)
        assert "Created 4,000 products, up to line 4,000." in shown.decode().splitlines()

    async def test_aborted_upsert_reports_the_updated_products(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path
    ) -> None:
        file = tmp_path / "products.ndjson.gz"
        file.write_bytes(gzip.compress(lines_of(5_000)))
        await catalog.output_of("import", str(file), "--owner", str(ada and "ada"))
        changed = lines_of(5_000).replace(b"Lamp", b"Rug", 1_000)
        file.write_bytes(gzip.compress(changed)[:-9])

        told, _ = await catalog.faults_of("import", str(file), "--owner", "ada", "--mode=upsert")

        assert told == "Created 0 products, updated 1,000; 3,000 unchanged, up to line 4,000."


class TestPipe:
    """Imports from what has neither a size nor a position."""

    @pytest.mark.parametrize("count", [1, 5_000])
    async def test_fifo_is_imported_at_a_terminal(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path, count: int
    ) -> None:
        fifo = tmp_path / "products.ndjson"
        os.mkfifo(fifo)
        terminal, its_end = pty.openpty()

        async with catalog.started(
            *("import", str(fifo), "--owner", str(ada and "ada")), standard_error=its_end
        ) as process:
            os.close(its_end)
            await asyncio.to_thread(fifo.write_bytes, lines_of(count))
            printed, _ = await process.communicate()

        os.set_blocking(terminal, False)
        shown = b""
        with suppress(OSError):
            shown = os.read(terminal, 1024)
        os.close(terminal)
        assert (process.returncode, shown) == (0, b"")
        assert (
            printed.decode() == f"Created {count:,} product{'s' * (count > 1)}; 0 lines failed.\n"
        )

    @pytest.mark.parametrize("packed", [False, True])
    async def test_lines_are_written_while_the_next_are_awaited(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path, packed: bool
    ) -> None:
        fifo = tmp_path / ("products.ndjson.gz" if packed else "products.ndjson")
        os.mkfifo(fifo)
        text = lines_of(5_000)

        async with catalog.started("import", str(fifo), "--owner", str(ada and "ada")) as process:
            with await asyncio.to_thread(fifo.open, "wb") as writer:
                await asyncio.to_thread(writer.write, gzip.compress(text) if packed else text)
                writer.flush()
                await until_created(catalog, 4_000)
            printed, _ = await process.communicate()

        assert printed == b"Created 5,000 products; 0 lines failed.\n"

    @pytest.mark.parametrize("mode", ["create", "upsert"])
    async def test_interrupt_ends_the_import_and_reports_its_progress(
        self, catalog: CommandLine, ada: Caller, mode: str
    ) -> None:
        arguments = ("import", "-", "--format", "ndjson", "--owner", str(ada and "ada"))

        async with catalog.started(
            *arguments, "--mode", mode, standard_input=asyncio.subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            process.stdin.write(b'{"name": "", "price": 1}\n' + lines_of(5_000))
            await until_created(catalog, 4_000)
            process.send_signal(signal.SIGINT)
            # Standard input stays open.
            await asyncio.wait_for(process.wait(), 30)
            assert process.stderr is not None
            told = (await process.stderr.read()).decode().splitlines()

        assert process.returncode == 1
        assert told == [
            "Line 1: name must not be empty.",
            "Created 4,000 products"
            + (", updated 0; 0 unchanged" if mode == "upsert" else "")
            + ", up to line 4,001.",
            "",
            "Aborted!",
        ]
        assert await catalog.query("SELECT count(*) FROM products") == [(4_000,)]

    async def test_failed_read_reports_the_progress_of_the_import(
        self, catalog: CommandLine, ada: Caller
    ) -> None:
        # A terminal whose other end is closed is an input/output error.
        terminal, its_end = pty.openpty()
        tty.setraw(its_end)

        async with catalog.started(
            *("import", "-", "--format", "ndjson", "--owner", str(ada and "ada")),
            standard_input=terminal,
        ) as process:
            with os.fdopen(its_end, "wb") as writer:
                await asyncio.to_thread(writer.write, lines_of(5_000))
            _, errors = await process.communicate()
        os.close(terminal)

        told, fault = errors.decode().splitlines()
        assert told == "Created 4,000 products, up to line 4,000."
        assert fault == "System error: Input/output error"

    async def test_interrupted_atomic_import_writes_nothing(
        self, catalog: CommandLine, ada: Caller
    ) -> None:
        arguments = ("import", "-", "--format", "ndjson", "--owner", str(ada and "ada"))

        async with catalog.started(
            *arguments, "--atomic", standard_input=asyncio.subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            process.stdin.write(lines_of(5_000))
            # Returns when the command has read nearly all of it.
            await process.stdin.drain()
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), 30)
            assert process.stderr is not None
            told = await process.stderr.read()

        assert (process.returncode, told.decode().split()) == (1, ["Aborted!"])
        assert await catalog.query("SELECT count(*) FROM products") == [(0,)]


class TestExport:
    async def test_csv_has_a_header_and_escapes_formulas(
        self, catalog: CommandLine, ada: Caller
    ) -> None:
        await ada.create_product("=1+1", description="'til dawn")

        printed = (await catalog.run("export", "--format", "csv")).stdout

        (record,) = csv.DictReader(StringIO(printed, newline=""))
        assert (record["name"], record["description"]) == ("'=1+1", "'til dawn")

    async def test_file_may_be_compressed_or_standard_output(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path
    ) -> None:
        await ada.create_product("Lamp")
        file = tmp_path / "all.CSV.gz"

        await catalog.run("export", str(file))
        printed = (await catalog.run("export", "-", "--format", "csv")).stdout

        text = gzip.decompress(file.read_bytes()).decode()
        # The runner translates the line ends of its output.
        assert text.replace("\r\n", "\n") == printed
        assert "Lamp" in printed

    async def test_csv_may_have_a_byte_order_mark_and_bare_formulas(
        self, catalog: CommandLine, ada: Caller
    ) -> None:
        await ada.create_product("=1+1")

        printed = await catalog.run("export", "--format", "csv", "--bom", "--no-guard")

        assert printed.stdout.startswith("\ufeffid,name")
        assert ",=1+1," in printed.stdout

    async def test_tabs_and_options_of_csv_for_ndjson_are_refused(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path
    ) -> None:
        file = tmp_path / "all.ndjson"
        file.write_text('{"name": "Lamp", "price": 1}\n')
        usages = {
            ("export", str(tmp_path / "all.tsv")): "with commas, not tabs",
            ("export", str(tmp_path / "all.TSV.gz")): "with commas, not tabs",
            ("export", str(file), "--bom"): "--bom is only for CSV.",
            ("export", "--format", "ndjson", "--no-guard"): "--no-guard is only for CSV.",
            ("import", str(file), "--owner", "ada", "--no-guard"): "--no-guard is only for CSV.",
        }

        results = {arguments: await catalog.run(*arguments) for arguments in usages}

        assert ada
        assert [result.exit_code for result in results.values()] == [2] * len(usages)
        for arguments, fault in usages.items():
            assert fault in results[arguments].stderr
        assert [each.name for each in tmp_path.glob("all*")] == ["all.ndjson"]
        named = await catalog.run("export", str(tmp_path / "all.tsv"), "--format", "csv")
        assert named.exit_code == 0

    async def test_file_is_replaced_atomically(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path
    ) -> None:
        file = tmp_path / "all.ndjson"
        file.write_text("what was there before")

        failed = await catalog.run("export", str(file), DATABASE_URL=f"sqlite:///{tmp_path}/no.db")
        assert failed.exit_code == 1
        assert file.read_text() == "what was there before"

        await ada.create_product("Lamp")
        await catalog.run("export", str(file))

        assert json.loads(file.read_text())["name"] == "Lamp"
        assert [each.name for each in tmp_path.glob("*.ndjson*")] == ["all.ndjson"]
        assert not list(tmp_path.glob(".all*"))

    @pytest.mark.parametrize("name", ["all.ndjson", "all.ndjson.gz"])
    async def test_fifo_is_written_to(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path, name: str
    ) -> None:
        await ada.create_product("Lamp")
        fifo = tmp_path / name
        os.mkfifo(fifo)

        reading = asyncio.create_task(asyncio.to_thread(fifo.read_bytes))
        exported = await catalog.run("export", str(fifo))
        text = await asyncio.wait_for(reading, 10)

        assert exported.exit_code == 0
        assert json.loads(gzip.decompress(text) if name.endswith("gz") else text)["name"] == "Lamp"
        assert fifo.is_fifo()

    async def test_open_pipe_and_device_are_written_to(
        self, catalog: CommandLine, ada: Caller
    ) -> None:
        await ada.create_product("Lamp")
        reader, writer = os.pipe()

        # As the shell names it in `>(wc -l)`.
        piped = await catalog.run("export", f"/proc/self/fd/{writer}", "--format", "ndjson")
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            text = pipe.read()
        assert (piped.exit_code, json.loads(text)["name"]) == (0, "Lamp")

        terminal, its_end = pty.openpty()
        device = os.ttyname(its_end)
        shown = await catalog.run("export", device, "--format", "ndjson")
        text = os.read(terminal, 1024)
        os.close(its_end)
        os.close(terminal)
        assert (shown.exit_code, json.loads(text)["name"]) == (0, "Lamp")

    @pytest.mark.parametrize("is_dangling", [False, True])
    async def test_symbolic_link_is_followed(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path, is_dangling: bool
    ) -> None:
        await ada.create_product("Lamp")
        target = tmp_path / "elsewhere" / "today"
        target.parent.mkdir()
        if not is_dangling:
            target.write_text("what was there before")
        link = tmp_path / "all.ndjson"
        link.symlink_to("elsewhere/today")

        await catalog.run("export", str(link))

        assert link.is_symlink()
        assert json.loads(target.read_text())["name"] == "Lamp"
        assert [each.name for each in target.parent.iterdir()] == ["today"]

    async def test_file_keeps_its_mode_and_a_new_one_has_that_of_the_umask(
        self, catalog: CommandLine, ada: Caller, tmp_path: Path
    ) -> None:
        await ada.create_product("Lamp")
        private, public = tmp_path / "private.csv", tmp_path / "new.csv"
        private.touch(mode=0o600)

        mask = os.umask(0o027)
        try:
            for file in (private, public):
                await catalog.run("export", str(file))
        finally:
            os.umask(mask)

        assert [stat.S_IMODE(file.stat().st_mode) for file in (private, public)] == [0o600, 0o640]
