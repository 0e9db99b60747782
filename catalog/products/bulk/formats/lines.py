"""Lines of a bulk text: their limits, their validation, and their faults."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self, cast

from pydantic import ValidationError

from catalog.errors import BodyTooLarge, CatalogError, InvalidRequest
from catalog.http.replies.problems import MAX_FIELD_ERRORS, field_errors
from catalog.products.models import MAX_DESCRIPTION, MAX_KEY, MAX_NAME, MAX_PRICE
from catalog.products.schemas import ProductCreate, ProductRead, ProductUpsert

MAX_LINE_BYTES = 256 * 1024
"""Maximum size of a line; the longest product fits even with every character escaped."""

LONG_LINE = 8 * 1024
"""Bytes or characters beyond which a line is parsed in a thread: a malicious line of
``MAX_LINE_BYTES`` takes 0.2 s."""

BLANK_LINES = 1000
"""Consecutive blank lines skipped in one step."""

LINES_AT_ONCE = 250
"""Lines that are parsed in one step if all of them are plain."""

WRITABLE = frozenset(ProductCreate.model_fields)
READ_ONLY = frozenset(ProductRead.model_fields) - WRITABLE
"""Further fields of an export, which an import ignores."""

UPSERT_ONLY = frozenset({"id", "version"})
"""Columns that name the product of a line, where products may be changed."""

LINE_TOO_LONG = BodyTooLarge(f"A line may have at most {MAX_LINE_BYTES} bytes.")


class ParsedProduct(NamedTuple):
    """Valid product parsed from a line, without an owner."""

    name: str
    description: str | None
    price: float
    key: str | None = None


class UpsertLine(NamedTuple):
    """Valid line of an import that also changes products.

    Attributes:
        number: its number, as in ``LineFault``.
        product_id: the id of the product that it names; None if it names one by its key, or none.
        version: the version that the product must have; None for any.
        values: the fields to set, valid.
        may_update: whether the product may exist; otherwise its key has to be new.
    """

    number: int
    product_id: int | None
    version: int | None
    values: dict[str, Any]
    may_update: bool = True

    @classmethod
    def creating(cls, number: int, product: ParsedProduct) -> Self:
        """Return the line of a product to create."""
        return cls(number, None, None, product._asdict(), may_update=False)


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


Parsed = ParsedProduct | UpsertLine | list[LineFault] | UnreadLines
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


def validate_columns(
    names: Sequence[object],
    descriptions: Sequence[object],
    prices: Sequence[Any],
    keys: Sequence[object],
) -> list[ParsedProduct] | None:
    """Validate the members of many lines by column, in a third of ``validate_fast``'s time.

    The caller has checked that no text contains NUL. Equal to ``validate_fast`` of each line; None
    if that would return None for one of them.
    """
    if (
        set(map(type, names)) == {str}
        and max(map(len, cast("Sequence[str]", names))) <= MAX_NAME
        and all(map(str.strip, cast("Sequence[str]", names)))
        and set(map(type, prices)) <= {int, float}
        and all(0 <= price <= MAX_PRICE for price in prices)
        and _are_texts(descriptions, MAX_DESCRIPTION)
        and _are_texts(keys, MAX_KEY)
        and "" not in keys
    ):
        doubles = [price + 0.0 for price in prices]
        return list(map(_PARSED, zip(names, descriptions, doubles, keys, strict=True)))
    return None


# Without a call of a function of Python's for each product.
_PARSED: Callable[[Iterable[Any]], ParsedProduct] = partial(tuple.__new__, ParsedProduct)


def _are_texts(column: Sequence[Any], longest: int) -> bool:
    """Tell whether all values are None or texts of a length."""
    return (
        set(map(type, column)) <= {str, type(None)}
        and max(map(len, filter(None, column)), default=0) <= longest
    )


def validate(members: Any, line: int) -> Parsed:
    """Validate the members of a line by the schema; return the product or the faults."""
    members = _without(READ_ONLY, members)
    try:
        product = ProductCreate.model_validate(members)
    except ValidationError as error:
        return _invalid(line, error)
    return ParsedProduct(product.name, product.description, product.price, product.key)


def validate_upsert(members: Any, line: int) -> Parsed:
    """Validate the members of a line that may change a product."""
    members = _without(READ_ONLY - UPSERT_ONLY, members)
    try:
        product = ProductUpsert.model_validate(members)
    except ValidationError as error:
        return _invalid(line, error)
    values = product.model_dump(exclude_unset=True, exclude=set(UPSERT_ONLY))
    return UpsertLine(line, product.id, product.version, values)


def _without(ignored: frozenset[str], members: Any) -> Any:
    """Return the members that are validated: without ignored ones, and with few unknown ones."""
    if not isinstance(members, dict):
        return members
    members = {name: value for name, value in members.items() if name not in ignored}
    if len(members) > MAX_FIELD_ERRORS:
        # The schema would report all unknown members before the first few are selected.
        unknown = [name for name in members if name not in WRITABLE | UPSERT_ONLY]
        for name in unknown[MAX_FIELD_ERRORS:]:
            del members[name]
    return members


def _invalid(line: int, error: ValidationError) -> list[LineFault]:
    return [
        LineFault(
            line,
            InvalidRequest.slug,
            fault.message if fault.name else f"The line {fault.rule}.",
            fault.name,
        )
        for fault in field_errors(error)
    ]


def faults_of(line: int, error: CatalogError) -> list[LineFault]:
    """Return the one fault of a line that a single create would refuse with this error."""
    return [LineFault(line, error.slug, error.detail)]
