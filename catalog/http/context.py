"""Typed access to the state of the running app, for request handlers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from hypercorn.typing import HTTPScope
from quart import Quart

from catalog.db.database import Database
from catalog.http.limit_store import LimitStore
from catalog.http.pagination import Cursors
from catalog.http.request import current_request
from catalog.http.response_buffers import ResponseBuffers
from catalog.observability.access_log import AccessLog
from catalog.settings import Settings

_EXTENSION = "catalog"


@dataclass(slots=True)
class AppState:
    """State and dependencies of one app.

    Attributes:
        known_revisions: every revision of the schema that this release knows.
        head_revision: the newest of them.
        buffers: unsent bytes of responses.
        access_log: the log of the requests.
        is_quick: whether a request is answered without the framework.
        draining: whether the process is about to stop and wants no new clients.
        gauges: functions that update gauges before the metrics are exposed.
        exposing: lock held while the metrics are exposed.
    """

    settings: Settings
    database: Database
    cursors: Cursors
    limits: LimitStore
    known_revisions: frozenset[str]
    head_revision: str
    buffers: ResponseBuffers
    access_log: AccessLog = field(default_factory=AccessLog)
    is_quick: Callable[[HTTPScope], bool] = lambda _: False
    draining: bool = False
    gauges: list[Callable[[], None]] = field(default_factory=list)
    exposing: asyncio.Lock = field(default_factory=asyncio.Lock)


def attach(app: Quart, running: AppState) -> None:
    """Attach the state to an app; once, when the app is created."""
    app.extensions[_EXTENSION] = running


def running(app: Quart | None = None) -> AppState:
    """Return the state of an app, by default of the one that handles this request."""
    held: AppState = (app or current_request().app).extensions[_EXTENSION]
    return held


def database() -> Database:
    """Return the database of the app that handles this request."""
    return running().database


def settings() -> Settings:
    """Return the settings of the app that handles this request."""
    return running().settings


def cursors() -> Cursors:
    """Return the issuer and verifier of this service's cursors."""
    return running().cursors


def client_address() -> str:
    """Return the client's address; empty when the request came through a unix socket."""
    client = current_request().client
    return str(client[0]) if client else ""
