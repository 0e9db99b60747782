"""Client of the catalog for Python programs; depends on httpx and on nothing of the service.

``AsyncClient`` for programs with an event loop, ``Client`` for all others.
"""

from catalog.client.asynchronous import AsyncClient
from catalog.client.errors import (
    CatalogError,
    ChangesGone,
    Conflict,
    ConnectionFailed,
    Fault,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    RateLimited,
    Refused,
    Unauthenticated,
    Unavailable,
    UnexpectedResponse,
)
from catalog.client.exporting import Export
from catalog.client.models import (
    Account,
    Change,
    Key,
    LineError,
    NewProduct,
    Product,
    ProductChanges,
    UploadReport,
    UpsertedProduct,
)
from catalog.client.synchronous import Client
from catalog.client.uploading import UploadInterrupted

__all__ = [
    "Account",
    "AsyncClient",
    "CatalogError",
    "Change",
    "ChangesGone",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Export",
    "Fault",
    "Forbidden",
    "Invalid",
    "Key",
    "LineError",
    "NewProduct",
    "NotFound",
    "PreconditionFailed",
    "Product",
    "ProductChanges",
    "RateLimited",
    "Refused",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedResponse",
    "UploadInterrupted",
    "UploadReport",
    "UpsertedProduct",
]
