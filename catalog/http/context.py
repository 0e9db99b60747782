"""What the running app holds, typed, for whoever handles a request."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from quart import Quart, current_app, request

from catalog.db.database import Database
from catalog.http.limit_store import LimitStore
from catalog.http.pagination import Cursors
from catalog.http.response_buffers import ResponseBuffers
from catalog.settings import Settings

_EXTENSION = "catalog"


@dataclass(slots=True)
class AppState:
    """One app and what it runs on.

    Attributes:
        schema_revisions: every revision of the schema that this release knows, and its newest.
        draining: whether the process is about to stop and wants no new clients.
        buffers: answers that wait for their clients.
        gauges: what tells the metrics how things are now.
        exposing: held by who writes the metrics out.
    """

    settings: Settings
    database: Database
    cursors: Cursors
    limits: LimitStore
    known_revisions: frozenset[str]
    head_revision: str
    buffers: ResponseBuffers
    draining: bool = False
    gauges: list[Callable[[], None]] = field(default_factory=list)
    exposing: asyncio.Lock = field(default_factory=asyncio.Lock)


def attach(app: Quart, running: AppState) -> None:
    """Attach what an app runs on; once, when it is made."""
    app.extensions[_EXTENSION] = running


def running(app: Quart | None = None) -> AppState:
    """What an app runs on: the given one, or the one handling this request."""
    held: AppState = (app or current_app).extensions[_EXTENSION]
    return held


def database() -> Database:
    """The database of the app handling this request."""
    return running().database


def settings() -> Settings:
    """The settings of the app handling this request."""
    return running().settings


def cursors() -> Cursors:
    """The maker and reader of this service's cursors."""
    return running().cursors


def request_id() -> str:
    """The id under which this request is answered and logged."""
    return str(request.scope.get("catalog.request_id", ""))


def client_address() -> str:
    """The address that this request comes from; empty when it came through a unix socket."""
    client = request.scope.get("client")
    return str(client[0]) if client else ""
