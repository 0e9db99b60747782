"""Problems as pages, for browsers outside of the API."""

import re
from html import escape

from catalog.errors import CatalogError
from catalog.http.replies.reply import Reply
from catalog.http.request import Request

# Names HTML and not JSON, as browsers do: without a weight, or with one if no unweighted range
# includes JSON. Weights are not compared, because nginx decides by the same expression
# (docker/nginx/catalog/problem_table.conf).
BROWSER = re.compile(
    r"^(?!.*application/(problem\+)?json[ \t]*(,|$))(.*text/html[ \t]*(,|$)"
    r"|(?!.*(application/(problem\+)?json|(application|\*)/\*[ \t]*(,|$)))"
    r".*text/html[ \t]*;[ \t]*q=(1|0\.0*[1-9]))",
    re.IGNORECASE,
)

_POLICY = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{title}</title>
  <link rel="stylesheet" href="{root}/docs/page.css">
</head>
<body>
  <main>
    <h1>{title}</h1>
    <p>{detail}</p>
    <p><a href="{root}/">Home</a></p>
    <p><small>{status} {code}, request {request_id}</small></p>
  </main>
</body>
</html>
"""


def wants_page(request: Request) -> bool:
    """Return whether the error of a request is for a person at a browser."""
    path: str = request.scope["path"]
    if path.startswith("/api/") or path == "/api":
        return False
    return BROWSER.match(",".join(request.header_values("accept"))) is not None


def problem_page(error: CatalogError, request: Request) -> Reply:
    """Return the page that says what the problem details say, and leads home."""
    page = _PAGE.format(
        root=request.prefix,
        title=escape(error.title),
        detail=escape(error.detail),
        status=error.status,
        code=error.slug,
        request_id=request.request_id,
    )
    headers = {**error.headers, "Content-Security-Policy": _POLICY}
    return Reply(
        page.encode(), status=error.status, headers=headers, media_type="text/html; charset=utf-8"
    )
