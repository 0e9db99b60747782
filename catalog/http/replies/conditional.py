"""Conditional requests by entity tag (RFC 9110, section 13)."""

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b, sha256
from http import HTTPStatus
from typing import Any

import orjson

from catalog.errors import FieldError, InvalidRequest, PreconditionFailed
from catalog.http.replies.reply import Reply, admitted
from catalog.http.request import current_request

_SEPARATORS = re.compile(r"[ \t,]*+")
# A tag is followed by the end of the header, or by a comma before the next tag.
_LISTED_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*+")[ \t]*+(?:\Z|,[ \t,]*+)')

# What proxies that compress append to a tag: Apache and Caddy a hyphen, Jetty two, others a
# semicolon, and the name of the coding. Tags of this service never end like that.
_CODING = re.compile(r'(?:--?|;)(?:gzip|br|zstd|deflate)"\Z')


def etag_of(body: bytes, *, version: int | None = None) -> str:
    """Return a strong entity tag of a representation (RFC 9110, section 8.8.3).

    It is a hash of the bytes, so that a release that renders the same state differently yields a
    different tag. A version, if any, stands before the hash, for people to read.
    """
    if version is None:
        # Processors have instructions for it: a page takes half of the time of BLAKE2. A
        # resource with a version keeps its hash, because clients hold such tags for If-Match.
        return f'"{sha256(body).hexdigest()[:16]}"'
    return f'"{version}-{blake2b(body, digest_size=8).hexdigest()}"'


def representation(resource: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return the JSON of a resource that has a ``version``, and its entity tag."""
    body = orjson.dumps(resource)
    return body, etag_of(body, version=resource["version"])


class Tags:
    """Entity tags of ``If-Match`` or ``If-None-Match``: a list of tags, or ``*`` for any.

    Args:
        text: the value of the header.

    Attributes:
        has_any: whether it is ``*``.

    Raises:
        ValueError: the text is neither.
    """

    def __init__(self, text: str) -> None:
        self.has_any = text.strip() == "*"
        self._tags = frozenset() if self.has_any else _opaque_tags(text)

    def __contains__(self, tag: str) -> bool:
        """Return whether a tag matches, by weak comparison and without the suffix of a coding.

        Proxies that compress mark tags as weak, or append the name of the coding. So both are
        ignored even for ``If-Match``, for which section 13.1.1 requires strong comparison:
        otherwise no conditional change would succeed through such a proxy.
        """
        return self.has_any or tag in self._tags


def _opaque_tags(text: str) -> frozenset[str]:
    # A tag may contain a comma, so the header cannot be split at commas. Matching at an offset
    # does not copy the rest of the header for each tag.
    tags = []
    at = _SEPARATORS.match(text).end()  # type: ignore[union-attr]  # It matches the empty string too.
    while at < len(text):
        match = _LISTED_TAG.match(text, at)
        if match is None:
            raise ValueError("must be * or a list of entity tags in double quotes")
        tags.append(_CODING.sub('"', match[1]))
        at = match.end()
    if not tags:
        raise ValueError("must be * or a list of entity tags in double quotes")
    return frozenset(tags)


def if_match() -> Tags | None:
    """Return the tags of ``If-Match`` (RFC 9110, section 13.1.1); None without the header.

    Raises:
        InvalidRequest: the header is malformed; ignoring it could lose an update.
    """
    return _tags_in("If-Match")


def if_none_match() -> Tags | None:
    """Return the tags of ``If-None-Match`` of a write; None without the header.

    Raises:
        InvalidRequest: the header is malformed; ignoring it could do what the client excluded.
    """
    return _tags_in("If-None-Match")


def _tags_in(field: str) -> Tags | None:
    values = current_request().header_values(field.lower())
    if not values:
        return None
    try:
        return Tags(",".join(values))
    except ValueError as fault:
        raise InvalidRequest(errors=[FieldError("header", field, str(fault))]) from None


def precondition() -> Callable[[str], bool] | None:
    """Return the condition of a write on the current entity tag; None if it has none.

    A method other than GET and HEAD is not performed if a tag of ``If-None-Match`` is current
    (RFC 9110, section 13.1.2).

    Raises:
        InvalidRequest: as ``if_match`` and ``if_none_match``.
    """
    expected, excluded = if_match(), if_none_match()
    if expected is not None and expected.has_any:
        # What does not exist is refused anyway, and to compute a tag takes long.
        expected = None
    if expected is None and excluded is None:
        return None
    return lambda etag: (
        (expected is None or etag in expected) and (excluded is None or etag not in excluded)
    )


def is_known(etag: str, if_none_match: Sequence[str]) -> bool:
    """Return whether the client has the representation already (RFC 9110, section 13.1.2).

    Args:
        etag: the tag of the current representation.
        if_none_match: the values of the request's ``If-None-Match`` fields.
    """
    try:
        return bool(if_none_match) and etag in Tags(",".join(if_none_match))
    except ValueError:
        # A malformed header is harmless here: the representation is sent again.
        return False


def _is_unexpected(etag: str, values: Sequence[str]) -> bool:
    """Return whether the client wants another representation only (RFC 9110, section 13.1.1)."""
    try:
        return etag not in Tags(",".join(values))
    except ValueError:
        # As harmless in a read as a malformed If-None-Match.
        return False


def cacheable_reply(body: bytes, etag: str, *, headers: Mapping[str, str]) -> Reply:
    """Return the response to a GET, or 304 if the client has it (RFC 9110, section 15.4.5).

    Raises:
        PreconditionFailed, Overloaded: as ``revalidated``.
    """
    return revalidated(Reply(body, headers={**headers, "ETag": etag}))


def revalidated(reply: Reply) -> Reply:
    """Return a response to a GET that has an ``ETag``, or 304 if the client has it.

    Raises:
        PreconditionFailed: ``If-Match`` names other representations only.
        Overloaded: as ``admitted``.
    """
    request = current_request()
    if b"if-match" in request.fields:
        etag = reply.headers["ETag"]
        if _is_unexpected(etag, request.header_values("if-match")):
            raise PreconditionFailed(etag=etag)
    if b"if-none-match" in request.fields:
        etag = reply.headers["ETag"]
        if is_known(etag, request.header_values("if-none-match")):
            return Reply(status=HTTPStatus.NOT_MODIFIED, headers=reply.headers, media_type=None)
    return admitted(reply)
