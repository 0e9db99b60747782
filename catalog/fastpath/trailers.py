"""Trailers of chunked bodies (RFC 9112, section 7.1.2), bounded as heads are.

The general parser reads all of them in one step: 130,000 bytes of the shortest ones take 57 ms. The
service ignores their content.
"""

from typing import Any

import h11
from h11._readers import ChunkedReader

from catalog.errors import CatalogError
from catalog.fastpath.request_head import check_size


class BoundedTrailers(ChunkedReader):
    """Reader of a chunked body that checks the size of its trailers before they are parsed."""

    def __call__(self, buf: Any) -> h11.Data | h11.EndOfMessage | None:
        """Read the next part of the body.

        Raises:
            LocalProtocolError: the body is malformed, or its trailers are too large.
        """
        if self._reading_trailer:
            unparsed = bytes(buf)
            # Without trailers, a whole next request may follow at once.
            if not unparsed.startswith((b"\r\n", b"\n")):
                try:
                    check_size(unparsed)
                except CatalogError as error:
                    raise h11.LocalProtocolError("too large trailers") from error
        return super().__call__(buf)


def bound_trailers(connection: Any) -> None:
    """Bound the trailers of the body that begins now, if it is chunked."""
    if isinstance(connection._reader, ChunkedReader):
        connection._reader = BoundedTrailers()
