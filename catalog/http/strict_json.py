"""Strict JSON parsing: only texts that all parsers read alike (RFC 8259, stricter RFC 7493)."""

import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from typing import Any, NoReturn

from catalog.errors import MalformedRequest

MAX_DEPTH = 32
"""Nesting levels of arrays and objects."""

MAX_CONTAINERS = 10_000
"""Arrays and objects in a text; building the 90,000 that fit into a body takes 60 ms."""

# A string, closed or running to the end of the text, is one token whatever it holds: if a match
# could begin at each of its quotes, a hostile string would take quadratic time.
_STRING = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)', re.DOTALL)

_BRACKET = re.compile(r"[\[{\]}]")


def parse_json(body: bytes) -> Any:
    """Parse JSON that every parser reads alike (RFC 7493, section 2).

    A byte order mark at the beginning is skipped, which RFC 8259, section 8.1, allows.

    Raises:
        MalformedRequest: not UTF-8, not JSON, a duplicate name in an object, a
            number that is not a finite double, a lone surrogate, nesting deeper than
            ``MAX_DEPTH``, or more arrays and objects than ``MAX_CONTAINERS``.
    """
    try:
        text = body.removeprefix(BOM_UTF8).decode("utf-8")
        _check_containers(text)
        value = _DECODER.decode(text)
    except UnicodeDecodeError:
        raise MalformedRequest("The body is not UTF-8.") from None
    except ValueError as error:
        # Includes integers of more digits than Python converts; that message is about Python.
        if isinstance(error, json.JSONDecodeError):
            # The position without the reason: the parser's wording differs between releases.
            place = f"line {error.lineno}, column {error.colno}"
            raise MalformedRequest(f"The body is not valid JSON at {place}.") from None
        raise MalformedRequest("The body contains a number that is too long.") from None
    # Only an escape can carry a lone surrogate past the decoder.
    if "\\u" in text and not _is_unicode(value):
        raise MalformedRequest("The body contains a lone surrogate, which is not a character.")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedRequest("The body contains an object with a duplicate field.")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedRequest(f"{name} is not JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedRequest("The body contains a number beyond the range of a double.")
    return number


# Made once: a decoder takes as long to make as a small object to decode.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
)


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_containers(text: str) -> None:
    """Check the brackets outside strings, whether the text is JSON or not.

    Runs before parsing, because Python's releases differ in the depth that their parser allows and
    in the error for exceeding it.

    Raises:
        MalformedRequest: more than ``MAX_CONTAINERS`` in total, or more than ``MAX_DEPTH`` levels
            open at once.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    text = _STRING.sub("", text)
    if text.count("[") + text.count("{") > MAX_CONTAINERS:
        raise MalformedRequest(
            f"The body contains more than {MAX_CONTAINERS:,} arrays and objects."
        )
    depth = 0
    for bracket in _BRACKET.finditer(text):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            raise MalformedRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
        if depth <= 0:
            # The parser stops here as well.
            return
