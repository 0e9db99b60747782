"""Guard against CSV injection: texts that a spreadsheet would run as a formula (OWASP)."""

import re

# Prefixes by which a spreadsheet takes a cell for a formula (OWASP, "CSV Injection"), ASCII and
# full width, after any number of apostrophes; or apostrophes alone, so that an empty text differs
# from null.
_GUARDED = re.compile("'*(?:[=+\\-@\t\r\n＝＋－＠]|\\Z)")  # noqa: RUF001 (full width is the point)
_MAY_BE_GUARDED = frozenset("'=+-@\t\r\n＝＋－＠")  # noqa: RUF001 (the same)


def guarded(text: str) -> str:
    """Encode a text as a cell, with an apostrophe before what a spreadsheet would run.

    A text that already looks guarded is guarded again, so that ``unguarded`` restores every text.
    """
    if text and text[0] not in _MAY_BE_GUARDED:
        return text
    return f"'{text}" if _GUARDED.match(text) else text


def unguarded(cell: str) -> str:
    """Decode the text of a cell: remove the apostrophe that ``guarded`` adds."""
    return cell[1:] if cell[:1] == "'" and _GUARDED.match(cell, 1) else cell
