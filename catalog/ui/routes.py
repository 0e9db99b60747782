"""``/docs``: pages without external resources or inline scripts."""

from importlib.resources import files
from pathlib import Path

from quart import Blueprint, Response, render_template, send_from_directory
from quart_schema import hide

from catalog.auth.guards import public
from catalog.errors import NotFound
from catalog.http.request import current_request
from catalog.ui.assets import PATH as ASSETS
from catalog.ui.assets import fingerprint

blueprint = Blueprint("ui", __name__, template_folder="templates")

# The package provides the files of Swagger UI; its Flask routes are not used.
_SWAGGER_UI = Path(str(files("flask_swagger_ui"))) / "dist"
_OURS = Path(__file__).parent / "static"
_ASSETS = {
    "docs.css": _OURS,
    "docs.js": _OURS,
    "docs_accessibility.js": _OURS,
    # Of the pages that browsers get for errors, also from nginx.
    "page.css": _OURS,
    "swagger-ui-bundle.js": _SWAGGER_UI,
    "swagger-ui.css": _SWAGGER_UI,
    "favicon-32x32.png": _SWAGGER_UI,
}

# Swagger UI sets style attributes and has its icons in data: URLs.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@blueprint.get("/docs")
@public
@hide
async def show_docs() -> Response:
    """Show the API's interactive documentation (Swagger UI)."""
    root = current_request().prefix
    # It is signed in by the console's script, as the console is.
    page = await render_template("docs.html", root=root, assets=f"{root}{ASSETS}/{fingerprint()}")
    response = Response(page)
    response.headers["Content-Security-Policy"] = _DOCS_POLICY
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/docs/<name>")
@public
@hide
async def read_asset(name: str) -> Response:
    """Return a script, style sheet or image of the pages."""
    if name not in _ASSETS:
        raise NotFound
    return await send_from_directory(_ASSETS[name], name, cache_timeout=3600)
