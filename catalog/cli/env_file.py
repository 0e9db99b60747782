"""Variables of a .env file, read as Compose reads them."""

import io
from pathlib import Path

from dotenv.parser import parse_stream

from catalog.errors import OperatorError


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a .env file by name; the last one of a name counts.

    Values keep their ``$``: passwords have them, and nothing is interpolated.

    Raises:
        OperatorError: the file is not UTF-8, or a line is no assignment.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise OperatorError(f"{path} is not UTF-8.") from None
    values = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            written = binding.original.string
            blank = written[: len(written) - len(written.lstrip())].count("\n")
            # Not the line itself, which may hold a secret.
            raise OperatorError(f"{path}, line {binding.original.line + blank}, is not NAME=value.")
        if binding.key is not None:
            values[binding.key] = binding.value or ""
    return values
