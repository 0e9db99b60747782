"""Count of the records in a text, made without the service's readers.

Where the text is well-formed, the csv module counts them; lines that a fault hides count one each.
"""

import csv
from io import StringIO

from catalog.products.bulk.formats.csv_header import SEPARATORS
from catalog.products.models import MAX_DESCRIPTION, MAX_NAME


def sent_lines(text: bytes) -> int:
    """Return the number of lines of NDJSON that are not blank."""
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return sum(not line.isspace() for line in lines if line)


def sent_records(text: bytes, separator: str = ",", encoding: str = "utf-8") -> int:
    """Return the number of records of a CSV text after its header.

    Args:
        text: begins with a header of the columns name, price, description.
        separator: of the cells.
        encoding: nothing is read from the record on in which the text leaves it.
    """
    try:
        valid, rest = text.decode(encoding), ""
    except UnicodeDecodeError as error:
        valid = error.object[: error.start].decode(encoding)
        rest = error.object[error.start :].decode(encoding, errors="replace")
    lines = [*StringIO(valid.removeprefix("\ufeff"), newline="\n")]
    reader = csv.reader(lines, strict=True, delimiter=separator)
    columns = len(next(reader))
    count = 0
    while (start := reader.line_num) < len(lines):
        try:
            cells = next(reader)
        except csv.Error:
            cells = None
        record = lines[start : reader.line_num]
        is_complete = reader.line_num < len(lines) or record[-1].endswith("\n")
        if rest and (reader.line_num == len(lines)) and not (is_complete and cells is not None):
            return count + not_blank("".join(record) + rest)
        if cells is None or (len(record) > 1 and _hides_others(cells, columns)):
            count += max(1, not_blank("".join(record)))
        else:
            count += any(cells)
    return count + not_blank(rest)


def not_blank(text: str) -> int:
    """Return the number of lines that are more than blanks and separators."""
    return sum(bool(line.strip(SEPARATORS + " \r")) for line in text.split("\n"))


def _hides_others(cells: list[str], columns: int) -> bool:
    while len(cells) > columns and not cells[-1]:
        cells = cells[:-1]
    if not any(cells):
        return False
    if len(cells) != columns:
        return True
    name, price, description = cells
    return (
        "\n" in price
        or ("\n" in name and len(name) > MAX_NAME)
        or ("\n" in description and len(description) > MAX_DESCRIPTION)
    )
