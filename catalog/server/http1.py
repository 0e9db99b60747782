"""HTTP/1.1 as we offer it: what hypercorn takes on top and cannot be told to leave out."""

import h11
import hypercorn.protocol
from hypercorn.events import Closed
from hypercorn.protocol.h11 import H11Protocol

VERSIONS = {b"1.0", b"1.1"}


class PlainH11Protocol(H11Protocol):
    """Stays with HTTP/1.1 for the whole connection.

    A proxy that forwards ``Upgrade: h2c`` and then relays bytes no longer sees the requests in
    them, so none of its rules apply. Ignoring the field is allowed (RFC 9110, section 7.8), and
    HTTP/2 without TLS has no other user here.
    """

    async def _check_protocol(self, event: h11.Request) -> None:
        """Decide nothing: the parent would switch to HTTP/2 here."""

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version in VERSIONS:
            await super()._create_stream(request)
            return
        # RFC 9110, section 15.6.6; HTTP/2 with prior knowledge lands here too, as "PRI * HTTP/2.0".
        await self._send_error_response(505)
        await self.send(Closed())


def install() -> None:
    """Make hypercorn use it for connections from now on, in this process."""
    # hypercorn has no setting and no factory for it; this name is where it looks the class up.
    hypercorn.protocol.H11Protocol = PlainH11Protocol  # type: ignore[attr-defined]  # on purpose
