"""Imports around every size bound: no record is lost, repeated or moved at a chunk's end."""

import csv
import io
from collections.abc import AsyncIterator
from typing import NamedTuple

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.columns import now
from catalog.db.database import Database
from catalog.errors import BodyTooLarge, LinesInvalid
from catalog.products.bulk import atomic, chunks
from catalog.products.bulk.chunks import ImportResult
from catalog.products.bulk.formats import CSV, NDJSON, Format, ParsedProduct
from catalog.products.bulk.importing import import_products
from catalog.products.changes import change_counter, change_log
from catalog.products.changes.change_ids import ChangeId
from catalog.products.models import ChangeType, Product, ProductChange
from tests.db.support import OWNER, add_owner, on_sqlite, run_on

CHUNK_ROWS = 4
CHUNK_CHARACTERS = 60
PIECE_BYTES = 100
MAX_FAULTS = 5
MAX_ATOMIC_ROWS = 12
MAX_ATOMIC_BYTES = 400

INVALID = None
Record = ParsedProduct | None


PATIENT = settings(
    max_examples=40,
    deadline=None,
    # Each example checks only the rows that it has added.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _numbered(count: int) -> list[Record]:
    return [ParsedProduct(f"n{number}", None, float(number)) for number in range(count)]


def _long(characters: int) -> list[Record]:
    return [ParsedProduct("n" * characters, None, 1.0)]


def _most_bytes(drafts: list[ParsedProduct]) -> int:
    """Return the drafts' most bytes on disk, in chunks of one; their least is a byte less each."""
    return sum(len(orjson.dumps(tuple(draft))) + 2 for draft in drafts)


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHUNK_ROWS", "CHUNK_CHARACTERS", "PIECE_BYTES", "MAX_FAULTS"):
        monkeypatch.setattr(chunks, name, globals()[name])
    for name in ("MAX_ATOMIC_ROWS", "MAX_ATOMIC_BYTES"):
        monkeypatch.setattr(atomic, name, globals()[name])


@pytest.fixture
async def owned(database: Database) -> Database:
    """Return a database with an account that may own products."""
    await database.transaction(add_owner)
    return database


def _around(*bounds: int) -> st.SearchStrategy[int]:
    return st.sampled_from(
        sorted({max(0, bound + delta) for bound in bounds for delta in (-1, 0, 1)})
    )


_counts = _around(*(CHUNK_ROWS * chunks for chunks in range(4)), MAX_FAULTS, MAX_ATOMIC_ROWS)
_lengths = st.sampled_from([1, 14, 15, 16, 19, 20, 29, 30, 31, 59, 60, 61])
_drafts = st.builds(
    lambda length, letter, price: ParsedProduct(letter * length, None, price),
    _lengths,
    st.sampled_from("aäé漢"),
    st.integers(0, 1000).map(float),
)


@st.composite
def _uniform(draw: st.DrawFn) -> list[Record]:
    """Draw records of one length, so that their number decides which bound they meet."""
    length = draw(_lengths)
    return [ParsedProduct("n" * length, None, float(number)) for number in range(draw(_counts))]


_mixed = _counts.flatmap(
    lambda count: st.lists(_drafts | st.just(INVALID), min_size=count, max_size=count)
)
_invalid: st.SearchStrategy[list[Record]] = _counts.map(lambda count: [INVALID] * count)
_records: st.SearchStrategy[list[Record]] = st.one_of(_uniform(), _mixed, _invalid)
_piece_sizes = st.sampled_from([1, 7, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 1 << 20])


def _ndjson(records: list[Record]) -> bytes:
    return b"".join(
        orjson.dumps({"name": "", "price": 1} if record is None else record._asdict()) + b"\n"
        for record in records
    )


def _csv(records: list[Record]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["name", "price"])
    for record in records:
        writer.writerow(["", 1] if record is None else [record.name, record.price])
    return text.getvalue().encode()


TEXTS = {NDJSON: _ndjson, CSV: _csv}


async def _pieces(text: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


class Stored(NamedTuple):
    """Products after an id, in order, and the log after a position."""

    products: list[tuple[int, ParsedProduct]]
    log: list[tuple[int, str, int]]
    head: ChangeId


async def _stored(connection: AsyncConnection, after_id: int, after: int) -> Stored:
    products = await connection.execute(
        select(Product.id, Product.name, Product.description, Product.price)
        .where(Product.id > after_id)
        .order_by(Product.id)
    )
    log = await connection.execute(
        select(ProductChange.position, ProductChange.type, ProductChange.product_id)
        .where(ProductChange.position > after)
        .order_by(ProductChange.position)
    )
    return Stored(
        [(row[0], ParsedProduct(*row[1:])) for row in products],
        [(row[0], row[1], row[2]) for row in log],
        await change_counter.current_change(connection),
    )


async def _import(
    database: Database,
    form: Format,
    records: list[Record],
    *,
    piece_size: int = 64 * 1024,
    atomic: bool = False,
    dry_run: bool = False,
) -> ImportResult:
    return await import_products(
        database,
        _pieces(TEXTS[form](records), piece_size),
        form.reader(),
        owner_id=OWNER,
        atomic=atomic,
        dry_run=dry_run,
    )


def _assert_stored(
    imported: ImportResult, valid: list[ParsedProduct], stored: Stored, before: int
) -> None:
    """Check that exactly the valid records are stored, with consecutive ids and positions."""
    ids = [product_id for product_id, _ in stored.products]
    assert [draft for _, draft in stored.products] == valid
    assert ids == list(range(ids[0], ids[0] + len(valid))) if ids else valid == []
    positions = range(before + 1, before + len(valid) + 1)
    assert stored.log == [
        (position, ChangeType.CREATED.value, product_id)
        for position, product_id in zip(positions, ids, strict=True)
    ]
    assert (imported.first_id, imported.last_id) == ((ids[0], ids[-1]) if ids else (None, None))
    assert imported.change == (stored.head if ids else None)


class TestBounds:
    @pytest.mark.parametrize("form", TEXTS, ids=lambda form: form.name)
    @pytest.mark.parametrize("dry_run", [False, True], ids=["real", "dry"])
    @pytest.mark.parametrize("atomic", [False, True], ids=["chunks", "atomic"])
    @on_sqlite
    @pytest.mark.usefixtures("small_bounds")
    @given(records=_records, piece_size=_piece_sizes)
    @example(records=[], piece_size=PIECE_BYTES)
    @example(records=_numbered(CHUNK_ROWS), piece_size=PIECE_BYTES)
    @example(records=_numbered(2 * CHUNK_ROWS), piece_size=1)
    @example(records=_numbered(MAX_ATOMIC_ROWS), piece_size=PIECE_BYTES)
    @example(records=_long(CHUNK_CHARACTERS), piece_size=PIECE_BYTES)
    @example(records=[*_long(CHUNK_CHARACTERS // 2), *_long(CHUNK_CHARACTERS // 2)], piece_size=1)
    @example(records=[INVALID] * MAX_FAULTS, piece_size=PIECE_BYTES)
    @example(records=[INVALID] * (MAX_FAULTS + 1), piece_size=PIECE_BYTES)
    @example(records=[*_numbered(CHUNK_ROWS), INVALID], piece_size=PIECE_BYTES)
    @PATIENT
    async def test_every_record_is_accounted_for_around_every_bound(
        self,
        owned: Database,
        form: Format,
        atomic: bool,
        dry_run: bool,
        records: list[Record],
        piece_size: int,
    ) -> None:
        valid = [record for record in records if record is not None]
        failed = len(records) - len(valid)
        before = await run_on(owned.connection(), _stored, 0, 0)
        last_id = before.products[-1][0] if before.products else 0

        try:
            imported = await _import(
                owned, form, records, piece_size=piece_size, atomic=atomic, dry_run=dry_run
            )
        except LinesInvalid as refusal:
            members = refusal.members
            assert atomic
            assert failed
            assert (members["created"], members["failed"]) == (0, failed)
            imported = ImportResult()
            valid = []
        except BodyTooLarge:
            assert atomic
            assert len(valid) > MAX_ATOMIC_ROWS or _most_bytes(valid) > MAX_ATOMIC_BYTES
            imported = ImportResult()
            valid = []
        else:
            assert (imported.created, imported.failed) == (len(valid), failed)
            assert not (atomic and failed)
            if atomic:
                assert len(valid) <= MAX_ATOMIC_ROWS
                assert _most_bytes(valid) - len(valid) <= MAX_ATOMIC_BYTES
            told = {fault.line for fault in imported.faults}
            assert len(told) == min(failed, MAX_FAULTS)

        after = await run_on(owned.connection(), _stored, last_id, before.head.position)
        if dry_run or not valid:
            assert (after.products, after.log, after.head) == ([], [], before.head)
        else:
            _assert_stored(imported, valid, after, before.head.position)

    @pytest.mark.parametrize("count", [2000, 4000])
    async def test_exactly_full_chunks_are_created_atomically(
        self, owned: Database, count: int
    ) -> None:
        records = _numbered(count)

        imported = await _import(owned, NDJSON, records, atomic=True)

        stored = await run_on(owned.connection(), _stored, 0, 0)
        assert imported.created == count
        _assert_stored(imported, [each for each in records if each], stored, 0)

    @on_sqlite
    async def test_documented_maximum_is_created_atomically(self, owned: Database) -> None:
        records = _numbered(atomic.MAX_ATOMIC_ROWS)

        imported = await _import(owned, NDJSON, records, atomic=True)

        stored = await run_on(owned.connection(), _stored, 0, 0)
        assert imported.created == atomic.MAX_ATOMIC_ROWS == 100_000
        _assert_stored(imported, [each for each in records if each], stored, 0)

    @on_sqlite
    async def test_product_beyond_the_maximum_is_refused(self, owned: Database) -> None:
        with pytest.raises(BodyTooLarge):
            await _import(owned, NDJSON, _numbered(atomic.MAX_ATOMIC_ROWS + 1), atomic=True)

        assert (await run_on(owned.connection(), _stored, 0, 0)).products == []


class TestRecord:
    async def test_empty_record_takes_no_position_and_keeps_the_token(
        self, owned: Database
    ) -> None:
        await _import(owned, NDJSON, _numbered(1))
        before = await run_on(owned.connection(), change_counter.current_change)

        assert await owned.transaction(change_log.record_created, [], at=now()) == before
        nothing = owned.transaction(change_log.record, ChangeType.DELETED, [], at=now())
        assert await nothing == before
        assert await run_on(owned.connection(), change_counter.current_change) == before
