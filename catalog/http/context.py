"""Typed access to the state of the running app, for request handlers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from quart import Quart

from catalog.db.database import Database
from catalog.http.limit_store import LimitStore
from catalog.http.pagination import Cursors
from catalog.http.request import current_request
from catalog.http.response_buffers import ResponseBuffers
from catalog.observability.access_log import AccessLog
from catalog.settings import Settings

T = TypeVar("T")


class AppExtension(Generic[T]):
    """State that is attached to each app once, when the app is created.

    Args:
        name: its key in the app's ``extensions``.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def attach(self, app: Quart, state: T) -> None:
        """Attach the state to an app."""
        app.extensions[self._name] = state

    def __call__(self, app: Quart | None = None) -> T:
        """Return the state of an app, by default of the one that handles the current request."""
        state: T = (app or current_request().app).extensions[self._name]
        return state


@dataclass(slots=True)
class AppState:
    """State and dependencies of one app.

    Attributes:
        known_revisions: every revision of the schema that this release knows.
        head_revision: the newest of them.
        buffers: unsent bytes of responses.
        access_log: the log of the requests.
        draining: whether the process is about to stop and wants no new clients.
        gauges: functions that update gauges before the metrics are exposed.
        exposing: lock held while the metrics are exposed.
        describing: lock held while the OpenAPI document is built.
    """

    settings: Settings
    database: Database
    cursors: Cursors
    limits: LimitStore
    known_revisions: frozenset[str]
    head_revision: str
    buffers: ResponseBuffers
    access_log: AccessLog = field(default_factory=AccessLog)
    draining: bool = False
    gauges: list[Callable[[], None]] = field(default_factory=list)
    exposing: asyncio.Lock = field(default_factory=asyncio.Lock)
    describing: asyncio.Lock = field(default_factory=asyncio.Lock)


app_state = AppExtension[AppState]("catalog")


def database() -> Database:
    """Return the database of the app that handles this request."""
    return app_state().database


def settings() -> Settings:
    """Return the settings of the app that handles this request."""
    return app_state().settings


def cursors() -> Cursors:
    """Return the issuer and verifier of this service's cursors."""
    return app_state().cursors


def client_address() -> str:
    """Return the client's address; empty when the request came through a unix socket."""
    client = current_request().client
    return str(client[0]) if client else ""
