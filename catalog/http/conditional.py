"""Entity tags (RFC 9110, section 8.8.3)."""

from hashlib import blake2b


def etag_of(body: bytes, *, version: int) -> str:
    """A strong entity tag of a representation.

    Begins with the resource's version, so that a writer who sends the tag back can be compared
    with the row; the rest is a hash of the bytes, so that a release that renders the same version
    differently does not pass it off as the same.
    """
    return f'"{version}-{blake2b(body, digest_size=8).hexdigest()}"'
