"""Hooks that let schemathesis send bodies of text; loaded by ``SCHEMATHESIS_HOOKS``."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson", "text/csv")
def as_text(context: Any, value: Any) -> bytes:  # noqa: ARG001 (the library's signature)
    """Return a generated text as it is."""
    return str(value).encode()
