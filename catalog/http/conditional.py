"""Requests that are to be done only if, or only once: entity tags (RFC 9110, section 13), keys."""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from quart import Response, request

from catalog.errors import FieldError, InvalidRequest
from catalog.http.rendering import json_response

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_SEPARATORS = re.compile(r"[ \t,]*+")
# Behind a tag there is the end, or a comma before the next one.
_LISTED_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*+")[ \t]*+(?:\Z|,[ \t,]*+)')


def etag_of(body: bytes, *, version: int | None = None) -> str:
    """A strong entity tag of a representation (RFC 9110, section 8.8.3).

    A hash of the bytes, so that a release that renders the same state differently does not pass
    it off as the same; behind the version of what has one, for people to see.
    """
    digest = blake2b(body, digest_size=8).hexdigest()
    return f'"{digest}"' if version is None else f'"{version}-{digest}"'


class Tags:
    """The entity tags that a client names: a list of them, or any.

    Args:
        text: the value of the header.

    Raises:
        ValueError: it is neither.
    """

    def __init__(self, text: str) -> None:
        self._any = text.strip() == "*"
        self._tags = frozenset() if self._any else _opaque_tags(text)

    def __contains__(self, tag: str) -> bool:
        """Whether a tag is one of them, however weak the client takes it for.

        Proxies that compress mark tags as weak. So the mark is ignored even for ``If-Match``, for
        which section 13.1.1 asks for strong tags: nothing else could be changed through them.
        """
        return self._any or tag in self._tags


def _opaque_tags(text: str) -> frozenset[str]:
    # A comma may stand inside of a tag, so the header is not just split; nor is its rest copied
    # for each tag.
    tags = []
    at = _SEPARATORS.match(text).end()  # type: ignore[union-attr]  # It may match nothing.
    while at < len(text):
        match = _LISTED_TAG.match(text, at)
        if match is None:
            raise ValueError("must be * or a list of entity tags in double quotes")
        tags.append(match[1])
        at = match.end()
    if not tags:
        raise ValueError("must be * or a list of entity tags in double quotes")
    return frozenset(tags)


def if_match() -> Tags | None:
    """What the caller expects to change (RFC 9110, section 13.1.1); None for anything.

    Raises:
        InvalidRequest: the header cannot be read, and to ignore it could lose an update.
    """
    values = request.headers.getlist("If-Match")
    if not values:
        return None
    try:
        return Tags(",".join(values))
    except ValueError as fault:
        raise InvalidRequest(errors=[FieldError("header", "If-Match", f"It {fault}.")]) from None


def idempotency_key() -> str | None:
    """The text under which the caller would send this request again; None if there is none.

    Raises:
        InvalidRequest: it is not 1 to 255 printable ASCII characters.
    """
    return key_among(request.headers.getlist("Idempotency-Key"))


def key_among(values: Sequence[str]) -> str | None:
    """The same, of a request's ``Idempotency-Key`` fields."""
    if not values:
        return None
    if len(values) > 1 or _KEY.fullmatch(values[0]) is None:
        message = "It must be 1 to 255 printable ASCII characters."
        raise InvalidRequest(errors=[FieldError("header", "Idempotency-Key", message)])
    return values[0]


def is_known(etag: str, if_none_match: Sequence[str]) -> bool:
    """Whether the client has it already (RFC 9110, section 13.1.2).

    Args:
        etag: of what it would get.
        if_none_match: the values of its ``If-None-Match`` fields.
    """
    try:
        return bool(if_none_match) and etag in Tags(",".join(if_none_match))
    except ValueError:
        # Nothing is lost by sending it once more.
        return False


def cacheable_response(body: bytes, etag: str, *, headers: Mapping[str, str]) -> Response:
    """The answer to a GET, or 304 for who has it already (RFC 9110, section 15.4.5)."""
    headers = {**headers, "ETag": etag}
    if is_known(etag, request.headers.getlist("If-None-Match")):
        return Response(b"", status=304, headers=headers)
    return json_response(body, headers=headers)
