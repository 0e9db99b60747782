"""The OpenAPI 3.1 document: quart-schema's output, completed."""

from catalog.http.openapi.document import (
    configure_openapi,
    document_of,
    is_built,
    server_of,
    with_server,
)
from catalog.http.openapi.marks import (
    also_takes,
    answers_nothing,
    may_lack_body,
    refuses,
    revalidates,
)

__all__ = [
    "also_takes",
    "answers_nothing",
    "configure_openapi",
    "document_of",
    "is_built",
    "may_lack_body",
    "refuses",
    "revalidates",
    "server_of",
    "with_server",
]
