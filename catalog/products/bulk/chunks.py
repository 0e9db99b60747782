"""Chunks of an import: parses a text into products, without blocking the event loop for long.

Parsing runs on the event loop, with which a thread would have to share the interpreter anyway, and
yields every few milliseconds.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from catalog.concurrency.turns import Turn
from catalog.observability.metrics import observe_position
from catalog.products import service
from catalog.products.bulk.formats import (
    LineFault,
    ParsedProduct,
    Reader,
    UnreadLines,
    UpsertLine,
    rendered,
)
from catalog.products.bulk.upserting import MAX_FAULTS, Upserted
from catalog.products.changes.change_ids import ChangeId
from catalog.products.models import NewProduct
from catalog.products.search.tokenizer import text_in_turns

CHUNK_ROWS = 2000
CHUNK_CHARACTERS = 250_000
"""Maximum size of a transaction; fewer products if they are long. Formatting that many as SQL
blocks the event loop for about ten milliseconds."""

PIECE_BYTES = 64 * 1024
"""Minimum size of the pieces passed to the reader, which scans an incomplete record anew each
time."""


@dataclass(slots=True)
class ImportResult:
    """Progress and result of an import.

    Attributes:
        created: products that were created, or would be in a dry run.
        updated: lines that changed a product.
        unchanged: lines whose product was like that already.
        has_upserts: whether lines may change products, so that these are reported.
        failed: number of invalid lines, and of records in lines that were not read.
        line: the last processed line: all valid products up to it have been created.
        change: the last change.
        faults: faults of the first invalid lines, up to ``MAX_FAULTS``; and of the first lines that
            were not read, up to as many again.
    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    has_upserts: bool = False
    failed: int = 0
    line: int = 0
    first_id: int | None = None
    last_id: int | None = None
    change: ChangeId | None = None
    faults: list[LineFault] = field(default_factory=list)
    _unread: int = 0

    def add_faults(self, faults: Sequence[LineFault]) -> None:
        """Add the faults of a line."""
        self.failed += 1
        self.faults += faults[: MAX_FAULTS - (len(self.faults) - self._unread)]

    def add_unread(self, lines: UnreadLines) -> None:
        """Add lines that were not read, also after too many faults to be reported in detail."""
        self.failed += lines.records
        if self._unread < MAX_FAULTS:
            self._unread += 1
            self.faults.append(lines.fault)

    def count(self, inserted: service.Inserted) -> None:
        """Add created products to the result."""
        self.created += len(inserted.ids)
        self.first_id = self.first_id or inserted.ids[0]
        self.last_id = inserted.ids[-1]
        self.change = inserted.last
        observe_position(self.change.position)

    def count_upserted(self, done: Upserted, *, has_ids: bool = True) -> None:
        """Add the outcome of lines to the result; in a dry run, created products have no ids."""
        self.created += len(done.ids)
        self.updated += done.updated
        self.unchanged += done.unchanged
        for faults in done.faults:
            self.add_faults(faults)
        self.failed += done.failed - len(done.faults)
        if done.ids and has_ids:
            self.first_id = self.first_id or done.ids[0]
            self.last_id = done.ids[-1]
        if done.last is not None:
            self.change = done.last
            observe_position(self.change.position)

    def rendered(self) -> dict[str, Any]:
        """Return the JSON members of the result."""
        upserts = {"updated": self.updated, "unchanged": self.unchanged}
        return {
            "created": self.created,
            **(upserts if self.has_upserts else {}),
            "failed": self.failed,
            "first_id": self.first_id,
            "last_id": self.last_id,
            # Lines of a chunk are decided while the next ones are parsed.
            "errors": rendered(sorted(self.faults, key=itemgetter(0))),
        }


class Chunk(NamedTuple):
    """Valid lines, parsed.

    Attributes:
        parsed_products: the products; or the lines, if they may change products.
        numbers: the number of each one's line.
        line: the number of the line at which the chunk ends.
    """

    parsed_products: Sequence[ParsedProduct | UpsertLine]
    numbers: list[int]
    line: int

    def upserts(self) -> list[UpsertLine] | None:
        """Return the lines, if they may change products or a key has to be looked up."""
        if not any(
            isinstance(product, UpsertLine) or product.key is not None
            for product in self.parsed_products
        ):
            return None
        return [
            product if isinstance(product, UpsertLine) else UpsertLine.creating(number, product)
            for number, product in zip(self.numbers, self.parsed_products, strict=True)
        ]


async def read_chunks(
    pieces: AsyncIterable[bytes], reader: Reader, imported: ImportResult
) -> AsyncGenerator[Chunk, None]:
    """Yield the valid products of a text in chunks, and record the faults of the other lines."""
    turn = Turn()
    parsed_products: list[Any] = []
    numbers: list[int] = []
    characters = 0
    async for piece, is_last in _gather(pieces):
        for found in reader.read(piece, is_last=is_last):
            parsed = await asyncio.to_thread(found) if callable(found) else found
            if isinstance(parsed, ParsedProduct | UpsertLine):
                parsed_products.append(parsed)
                numbers.append(reader.first_line)
                characters += _characters(parsed)
                if len(parsed_products) >= CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
                    yield Chunk(parsed_products, numbers, reader.line)
                    parsed_products, numbers, characters = [], [], 0
            elif isinstance(parsed, UnreadLines):
                imported.add_unread(parsed)
            elif parsed is not None:
                imported.add_faults(parsed)
            await turn.yield_if_over()
        # The last step of a piece takes time even if it completes no line.
        await turn.yield_if_over()
    yield Chunk(parsed_products, numbers, reader.line)


def _characters(parsed: ParsedProduct | UpsertLine) -> int:
    if isinstance(parsed, ParsedProduct):
        name, description, _, key = parsed
        return len(name) + len(description or "") + len(key or "")
    return sum(len(text) for text in parsed.values.values() if isinstance(text, str))


async def _gather(pieces: AsyncIterable[bytes]) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield the text in pieces of about ``PIECE_BYTES``, and whether each is the last."""
    parts: list[bytes] = []
    size = 0
    async for piece in pieces:
        # A much larger piece would be one long step of the reader.
        for start in range(0, len(piece), PIECE_BYTES):
            part = piece[start : start + PIECE_BYTES]
            parts.append(part)
            size += len(part)
            if size >= PIECE_BYTES:
                yield b"".join(parts), False
                parts, size = [], 0
    yield b"".join(parts), True


async def tokenize(parsed_products: Sequence[ParsedProduct], owner_id: int) -> list[NewProduct]:
    """Tokenize products, and yield to the event loop every few milliseconds."""
    turn = Turn()
    new_products = []
    for product in parsed_products:
        new_products.append(await _new_product(product, owner_id))
        await turn.yield_if_over()
    return new_products


async def _new_product(product: ParsedProduct, owner_id: int) -> NewProduct:
    name, description, price, key = product
    words = await text_in_turns(name, description)
    return NewProduct(name, description, price, owner_id, words=words, key=key)
