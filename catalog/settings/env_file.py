"""Variables of a .env file, read as Compose reads them."""

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

from dotenv.parser import parse_stream

from catalog.errors import OperatorError

# "$$", "$NAME" or "${NAME}", the latter also with a default, a replacement or a message.
_REFERENCE = re.compile(
    r"\$(?:(?P<escaped>\$)"
    r"|(?P<bare>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:?[-+?])(?P<word>[^{}]*))?\})"
)


def load_env_file(path: Path) -> None:
    """Add the variables of a .env file to the environment; variables that are set already win.

    Raises:
        OperatorError: as ``read_env_file``; or the file cannot be read.
    """
    try:
        values = read_env_file(path)
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.") from None
    for name, value in values.items():
        os.environ.setdefault(name, value)


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a .env file by name; the last one of a name counts.

    Values in single quotes are literal; others may refer to variables of the environment and to
    those above them. In contrast to Compose, a bare ``$NAME`` of an unknown variable stays as it
    is: it is part of a password, most likely.

    Raises:
        OperatorError: the file is not UTF-8, a line is no assignment, or a required variable of a
            reference is not set.
    """
    try:
        # The bytes as they are: open() would turn every line ending into a newline.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OperatorError(f"{path} is not UTF-8.") from None
    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text, newline="")):
        written = binding.original.string
        blank = written[: len(written) - len(written.lstrip())].count("\n")
        place = f"{path}, line {binding.original.line + blank},"
        if binding.error or (binding.key and "\0" in f"{binding.key}{binding.value}"):
            # Not the line itself, which may hold a secret.
            raise OperatorError(f"{place} is not NAME=value.")
        # Without "=", Compose passes the variable of the environment on.
        if binding.key is None or binding.value is None:
            continue
        quote = written.partition("=")[2].lstrip(" \t")[:1]
        value = binding.value
        if quote != "'":
            if quote == '"':
                value = value.replace("\\$", "$$")
            value = _interpolated(value, {**values, **os.environ}, place)
        values[binding.key] = value
    return values


def _interpolated(value: str, known: Mapping[str, str], place: str) -> str:
    def resolve(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["bare"]:
            return known.get(match["bare"], match[0])
        name, operator, word = match["name"], match["operator"] or "-", match["word"] or ""
        given = known.get(name)
        # With a colon, an empty variable counts as not set.
        is_set = bool(given) if operator.startswith(":") else given is not None
        if operator.endswith("+"):
            return word if is_set else ""
        if operator.endswith("?") and not is_set:
            raise OperatorError(f"{place} requires {name}, which is not set.")
        return given or "" if is_set else word

    return _REFERENCE.sub(resolve, value)
