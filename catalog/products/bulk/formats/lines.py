"""Lines of a bulk text: their limits, their validation, and their faults."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pydantic import ValidationError

from catalog.errors import BodyTooLarge, CatalogError, InvalidRequest
from catalog.http.replies.problems import MAX_FIELD_ERRORS, field_errors
from catalog.products.models import MAX_DESCRIPTION, MAX_KEY, MAX_NAME, MAX_PRICE
from catalog.products.schemas import ProductCreate, ProductRead

MAX_LINE_BYTES = 256 * 1024
"""Maximum size of a line; the longest product fits even with every character escaped."""

LONG_LINE = 8 * 1024
"""Bytes or characters beyond which a line is parsed in a thread: a malicious line of
``MAX_LINE_BYTES`` takes 0.2 s."""

BLANK_LINES = 1000
"""Consecutive blank lines skipped in one step."""

WRITABLE = frozenset(ProductCreate.model_fields)
READ_ONLY = frozenset(ProductRead.model_fields) - WRITABLE
"""Further fields of an export, which an import ignores."""

LINE_TOO_LONG = BodyTooLarge(f"A line may have at most {MAX_LINE_BYTES} bytes.")


class ParsedProduct(NamedTuple):
    """Valid product parsed from a line, without an owner."""

    name: str
    description: str | None
    price: float
    key: str | None = None


class LineFault(NamedTuple):
    """Fault of a line.

    Attributes:
        line: its number, from 1; for a record of several lines, the first one's.
        code: the slug of the error that a single create would get.
        message: a human-readable sentence.
        pointer: a JSON pointer (RFC 6901) to the field, if the fault concerns one.
        last_line: the last of the lines of which nothing was read, if there are several.
    """

    line: int
    code: str
    message: str
    pointer: str | None = None
    last_line: int | None = None


def rendered(faults: Iterable[LineFault]) -> list[dict[str, Any]]:
    """Return the JSON members of faults."""
    return [
        {name: value for name, value in fault._asdict().items() if value is not None}
        for fault in faults
    ]


class UnreadLines(NamedTuple):
    """Lines of which nothing was read, because a fault in the first one hides the others.

    Attributes:
        fault: the fault.
        records: the number of records that the lines hold if each line is one; blank ones are none.
    """

    fault: LineFault
    records: int


Parsed = ParsedProduct | list[LineFault] | UnreadLines
"""Result of parsing a line: a product or its faults."""

Found = Parsed | None | Callable[[], Parsed | None]
"""Next line of a text: its result, or None if it is skipped; or a function that parses it, too slow
for the event loop."""


def validate_fast(
    name: object, description: object, price: object, key: object = None
) -> ParsedProduct | None:
    """Validate the members of a line in an eighth of the schema's time.

    Whatever it accepts, the schema would accept with the same result. It may return None for valid
    products, which are then validated by the schema, as are invalid ones for their error messages.
    """
    if type(price) is int:
        price = float(price) if 0 <= price <= MAX_PRICE else None
    if (
        type(price) is float
        and 0 <= price <= MAX_PRICE
        and type(name) is str
        and len(name) <= MAX_NAME
        and "\0" not in name
        and name.strip()
        and (
            description is None
            or (
                type(description) is str
                and len(description) <= MAX_DESCRIPTION
                and "\0" not in description
            )
        )
        and (key is None or (type(key) is str and 1 <= len(key) <= MAX_KEY and "\0" not in key))
    ):
        # Adding 0.0 turns -0.0 into 0.0.
        return ParsedProduct(name, description, price + 0.0, key)
    return None


def validate(members: Any, line: int) -> Parsed:
    """Validate the members of a line by the schema; return the product or the faults."""
    if isinstance(members, dict):
        members = {name: value for name, value in members.items() if name not in READ_ONLY}
        if len(members) > MAX_FIELD_ERRORS:
            # The schema would report all unknown members before the first few are selected.
            unknown = [name for name in members if name not in WRITABLE]
            for name in unknown[MAX_FIELD_ERRORS:]:
                del members[name]
    try:
        product = ProductCreate.model_validate(members)
    except ValidationError as error:
        return [
            LineFault(
                line,
                InvalidRequest.slug,
                fault.message if fault.name else f"The line {fault.rule}.",
                fault.name,
            )
            for fault in field_errors(error)
        ]
    return ParsedProduct(product.name, product.description, product.price, product.key)


def faults_of(line: int, error: CatalogError) -> list[LineFault]:
    """Return the one fault of a line that a single create would refuse with this error."""
    return [LineFault(line, error.slug, error.detail)]
