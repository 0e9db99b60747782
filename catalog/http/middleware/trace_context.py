"""Parsing of ``traceparent`` (W3C Trace Context, section 3.2)."""

import re

# Neither id may be all zeros; ff is no version. Later versions may add fields after the flags.
_TRACEPARENT = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})"
    rb"-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)


def trace_id_of(value: bytes) -> str | None:
    """Return the trace id of a header value; None if it is not valid and must be ignored."""
    found = _TRACEPARENT.fullmatch(value)
    if found is None or (found["more"] and found["version"] == b"00"):
        return None
    return found["trace"].decode("ascii")
