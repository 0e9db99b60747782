"""Hooks that let schemathesis send bodies of text; loaded by ``SCHEMATHESIS_HOOKS``."""

from typing import Any

import schemathesis
from schemathesis.core import NotSet

TEXT = ("application/x-ndjson", "text/csv")


@schemathesis.serializer(*TEXT)
def as_text(context: Any, value: Any) -> bytes:  # noqa: ARG001 (the library's signature)
    """Return a generated text as it is."""
    return str(value).encode()


@schemathesis.hook
def filter_case(context: Any, case: schemathesis.Case[Any]) -> bool:  # noqa: ARG001 (the same)
    """Leave out bodies that violate the schema by not being text: sent as text, they are."""
    return case.media_type not in TEXT or isinstance(case.body, str | NotSet)
