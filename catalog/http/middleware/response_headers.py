"""Header fields that all responses share: security headers, and a deliberate ``Cache-Control``."""

from collections.abc import Sequence

from catalog.http.request import Header

# The API renders nothing and is never framed; pages set a policy of their own.
API_POLICY = b"default-src 'none'; frame-ancestors 'none'"

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def with_common_headers(headers: Sequence[Header], *, is_private: bool) -> list[Header]:
    """Return the header fields of a response with those that all responses share."""
    present = {name for name, _ in headers}
    fields = [*headers, *_ALWAYS]
    if b"content-security-policy" not in present:
        fields.append((b"content-security-policy", API_POLICY))
    if is_private:
        fields = [field for field in fields if field[0] != b"cache-control"]
    if is_private or b"cache-control" not in present:
        fields.append((b"cache-control", b"no-store"))
    return fields
