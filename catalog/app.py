"""The composition root: the one module that knows every room of the house."""

from functools import partial

from quart import Quart
from quart_schema import Tag

from catalog import migrations, operations
from catalog.auth import routes as auth_routes
from catalog.auth.guards import BEARER
from catalog.auth.keys import KEYS, KeyRing, signing_secret
from catalog.auth.passwords import Passwords
from catalog.auth.tokens import Tokens
from catalog.db.database import Database
from catalog.http.bodies import BoundedBodies, StrictRequest
from catalog.http.context import Running, hold, running
from catalog.http.headers import Envelope
from catalog.http.openapi import configure_openapi
from catalog.http.pagination import Cursors
from catalog.http.problems import handle_errors
from catalog.http.proxies import TrustedProxies
from catalog.http.routing import configure_routing
from catalog.products import routes as products_routes
from catalog.settings import Settings
from catalog.ui import routes as ui_routes

_TAGS = (
    Tag("auth", "Accounts and tokens."),
    Tag("products", "What the catalog offers."),
    Tag("operations", "Health."),
)


def create_app(settings: Settings) -> Quart:
    """Put the service together; nothing is opened until it is used.

    Raises:
        StartFailed: there is no signing key and none can be made.
        SettingsInvalid: a key cannot be used.
    """
    keys = KeyRing(settings, signing_secret(settings))
    app = Quart("catalog", static_folder=None)
    app.request_class = StrictRequest
    # Bodies are bounded before the framework sees them.
    app.config["MAX_CONTENT_LENGTH"] = None
    app.config["RESPONSE_TIMEOUT"] = settings.response_timeout
    hold(
        app,
        Running(
            settings=settings,
            database=Database(settings),
            cursors=Cursors(*keys.secrets),
            known_revisions=migrations.known_revisions(),
            head_revision=migrations.head_revision(),
        ),
    )
    app.extensions[KEYS] = keys
    Tokens(app, keys.secrets[0].decode(), settings)
    app.extensions[auth_routes.PASSWORDS] = Passwords(settings)
    configure_routing(app)
    configure_openapi(app, tags=_TAGS, bearer=BEARER)
    handle_errors(app)
    for room in (auth_routes, products_routes, operations, ui_routes):
        app.register_blueprint(room.blueprint)
    app.after_serving(partial(_close, app))
    _wrap(app, settings)
    return app


def _wrap(app: Quart, settings: Settings) -> None:
    """Put the middleware around the framework; the last one is the first to see a request."""
    state = running(app)
    bounded = BoundedBodies(
        app.asgi_app, max_bytes=settings.max_body_bytes, timeout=settings.body_timeout
    )
    enveloped = Envelope(bounded, settings, is_draining=lambda: state.draining)
    app.asgi_app = TrustedProxies(enveloped, settings.trusted_proxies)  # type: ignore[method-assign]  # the framework's documented way


async def _close(app: Quart) -> None:
    await running(app).database.close()
    passwords: Passwords = app.extensions[auth_routes.PASSWORDS]
    passwords.close()


def begin_drain(app: Quart) -> None:
    """Make the readiness check fail and let every answer close its connection."""
    running(app).draining = True
