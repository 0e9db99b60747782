"""``/`` and the console's other pages: products as HTML, and the console that takes over from it.

The pages can be read without JavaScript. With it, the console starts from the products that are on
the page already.
"""

from typing import Any
from urllib.parse import urlencode

import orjson
from quart import Blueprint, Response, render_template
from quart_schema import hide

from catalog import __version__
from catalog.auth.guards import public
from catalog.http.replies.reply import Reply
from catalog.http.request import current_request
from catalog.ui.api_call import call_view
from catalog.ui.assets import PATH as ASSETS
from catalog.ui.assets import fingerprint, modules

blueprint = Blueprint("console", __name__, template_folder="templates")

_PAGE_SIZE = "30"
_FIELDS = "id,name,price,user_id,created_at,version"
"""Products of a page unless the query says how many, and their fields; the console asks for the
same."""

_FORM_PARAMETERS = {"fields", "format", "total", "bom", "guard"}
"""Parameters that change the form of the API's list; the page needs its own, and ignores them."""

_SEARCHED = {"q", "min_price", "max_price", "sort", "cursor"}
"""Parameters that a search sets anew; it keeps the others, such as ``ids`` and ``user_id``."""

_SORTS = {
    "-id": "Newest first",
    "id": "Oldest first",
    "name": "Name, A to Z",
    "-name": "Name, Z to A",
    "price": "Price, low to high",
    "-price": "Price, high to low",
}

# Neither inline code nor markup made from strings: Preact sets properties of elements.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@blueprint.get("/")
@public
@hide
async def show_products() -> Response:
    """Show a page of products."""
    reply = await call_view("product_lists.list_products", query_string=_list_query())
    page = {**_members(reply), "change": reply.headers["Catalog-Change"]}
    # The API's next page and the page's own have the same query.
    next_query = (page["next"] or "").partition("?")[2]
    return await _page("products.html", page, next=next_query, sorts=_SORTS, kept=_kept())


@blueprint.get("/products/<id:product_id>")
@public
@hide
async def show_product(product_id: int) -> Response:
    """Show a product."""
    reply = await call_view("products.read_product", arguments={"product_id": product_id})
    page = {
        "product": _members(reply),
        "etag": reply.headers["ETag"],
        "change": reply.headers["Catalog-Change"],
    }
    return await _page("product.html", page)


@blueprint.get("/sign-in")
@blueprint.get("/products/new")
@blueprint.get("/import")
@blueprint.get("/account")
@blueprint.get("/users")
@public
@hide
async def show_console() -> Response:
    """Show a page that only the console can fill."""
    return await _page("console.html", None)


def _selection() -> list[tuple[str, str]]:
    """Return the parameters of the page's query that select its products."""
    return [
        (name, value)
        for name, value in current_request().query.items(multi=True)
        if name.removesuffix("[]") not in _FORM_PARAMETERS
    ]


def _kept() -> list[tuple[str, str]]:
    """Return the parameters that a search among the page's products keeps."""
    return [(name, value) for name, value in _selection() if value and name not in _SEARCHED]


def _list_query() -> bytes:
    """Return the API's query for the products that the page's own query selects."""
    given = _selection()
    # An empty limit is an absent one.
    default = [] if any(current_request().query.getlist("limit")) else [("limit", _PAGE_SIZE)]
    return urlencode([*given, *default, ("fields", _FIELDS)], safe=",").encode()


def _members(reply: Reply) -> dict[str, Any]:
    members: dict[str, Any] = orjson.loads(reply.body)  # type: ignore[arg-type]  # it is whole
    return members


async def _page(template: str, page: dict[str, Any] | None, **values: Any) -> Response:
    request = current_request()
    root = request.prefix
    text = await render_template(
        template,
        page=page,
        query=request.query,
        root=root,
        assets=f"{root}{ASSETS}/{fingerprint()}",
        modules=modules(),
        version=__version__,
        **values,
    )
    response = Response(text)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Cache-Control"] = "no-cache"
    return response
