"""Static files of the console: compressed once, and cached by browsers until a release."""

import gzip
from functools import cache
from hashlib import blake2b
from mimetypes import guess_type
from pathlib import Path
from typing import NamedTuple

from quart_schema import hide

from catalog.auth.guards import public
from catalog.errors import NotFound
from catalog.http.adapter import Routes
from catalog.http.replies.conditional import etag_of, revalidated
from catalog.http.replies.negotiation import weights_of
from catalog.http.replies.reply import Reply
from catalog.http.request import current_request

PATH = "/console/assets"

_FOLDER = Path(__file__).parent / "static" / "console"
_FOREVER = "public, max-age=31536000, immutable"

blueprint = Routes("console_assets", __name__, url_prefix=PATH)


class _Asset(NamedTuple):
    body: bytes
    compressed: bytes
    media_type: str


@cache
def _assets() -> dict[str, _Asset]:
    """Read the files, by their paths below the folder; some 150 kB in all."""
    return {
        path.relative_to(_FOLDER).as_posix(): _Asset(
            body := path.read_bytes(), gzip.compress(body, mtime=0), _media_type(path)
        )
        for path in sorted(_FOLDER.rglob("*.*"))
    }


def _media_type(path: Path) -> str:
    known, _ = guess_type(path.name)
    # Some systems' tables say application/javascript, or know nothing.
    media_type = "text/javascript" if path.suffix == ".js" else known or "text/plain"
    is_text = media_type.startswith("text/") or media_type == "image/svg+xml"
    return f"{media_type}; charset=utf-8" if is_text else media_type


@cache
def fingerprint() -> str:
    """Return a hash of all files; it is part of their URLs, so a release changes these."""
    digest = blake2b(digest_size=6)
    for name, asset in _assets().items():
        digest.update(b"%b\0%d\0" % (name.encode(), len(asset.body)))
        digest.update(asset.body)
    return digest.hexdigest()


def modules() -> list[str]:
    """Return the scripts that the console's first page needs, for browsers to load at once."""
    later = {"app.js", "sample.js"}
    return [name for name in _assets() if name.endswith(".js") and name not in later]


@blueprint.get("/<release>/<path:name>")
@public
@hide
async def read_console_asset(release: str, name: str) -> Reply:
    """Return a script, style sheet or image of the console."""
    asset = _assets().get(name)
    if asset is None:
        raise NotFound
    # During a rolling upgrade a page of one release may ask a worker of another.
    lasting = _FOREVER if release == fingerprint() else "no-cache"
    headers = {"Cache-Control": lasting, "Vary": "Accept-Encoding"}
    body = asset.body
    codings = ",".join(current_request().header_values("accept-encoding"))
    # A weight of 0 refuses the coding (RFC 9110, section 12.5.3).
    if weights_of(codings).get("gzip", 0) > 0:
        body = asset.compressed
        headers["Content-Encoding"] = "gzip"
    headers["ETag"] = etag_of(body)
    return revalidated(Reply(body, headers=headers, media_type=asset.media_type))
