"""Wording of validation errors, for clients and for operators.

pydantic's own messages speak of its classes and of Python's types.
"""

from collections.abc import Mapping
from typing import Any

RULES: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "datetime_type": "must be a time such as 2026-11-23T09:30:00Z",
    "datetime_parsing": "must be a time such as 2026-11-23T09:30:00Z",
    "datetime_from_date_parsing": "must be a time such as 2026-11-23T09:30:00Z",
    "datetime_object_invalid": "must be a time such as 2026-11-23T09:30:00Z",
    "timezone_aware": "must be a time with its time zone, such as 2026-11-23T09:30:00Z",
    "datetime_future": "must be in the future",
    "path_type": "must be a path",
}
"""Rule that an input has broken, by pydantic's type of the error and with its context."""

_UNFORESEEN = "is not valid"


def broken_rule(error: Mapping[str, Any]) -> str:
    """Return the rule that an error of pydantic reports, as a predicate: ``must be a string``.

    Rules of the service's own validators are predicates already. Never repeats the value, which
    may be a secret.
    """
    kind, context = error["type"], error.get("ctx", {})
    if kind in {"value_error", "assertion_error"}:
        return str(context["error"])
    if kind == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    # 'a', 'b' or 'c': values in quotes, which no value of an enumeration contains.
    known = {
        name: _number(value) if isinstance(value, float) else str(value).replace("'", "")
        for name, value in context.items()
    }
    return RULES.get(kind, _UNFORESEEN).format_map(known)


def _number(value: float) -> str:
    """Return a bound as people write it: 1000000000000 instead of 1e+12."""
    return str(int(value)) if value.is_integer() else str(value)
