"""The composition root: the one module that knows every room of the house."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from secrets import token_urlsafe
from typing import TypeVar

from quart import Quart
from quart_schema import Tag
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog import migrations, operations
from catalog.auth import routes as auth_routes
from catalog.auth import service as auth_service
from catalog.auth.guards import BEARER
from catalog.auth.models import Role
from catalog.auth.passwords import Passwords
from catalog.auth.tokens import Tokens, signing_secret
from catalog.db.database import Database
from catalog.db.failures import is_refusal
from catalog.errors import StartFailed, Taken
from catalog.http.bodies import BoundedBodies, StrictRequest
from catalog.http.context import Running, hold, running
from catalog.http.headers import Envelope
from catalog.http.openapi import configure_openapi
from catalog.http.pagination import Cursors
from catalog.http.problems import handle_errors
from catalog.http.proxies import TrustedProxies
from catalog.http.routing import configure_routing
from catalog.observability.logs import logger
from catalog.products import routes as products_routes
from catalog.settings import Settings
from catalog.ui import routes as ui_routes

T = TypeVar("T")

_log = logger(__name__)

_TAGS = (
    Tag("auth", "Accounts and tokens."),
    Tag("products", "What the catalog offers."),
    Tag("operations", "Health."),
)


def create_app(settings: Settings) -> Quart:
    """Put the service together; nothing is opened until it is used.

    Raises:
        StartFailed: there is no signing key and none can be made.
    """
    secret = signing_secret(settings)
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
            cursors=Cursors(secret.encode()),
            known_revisions=migrations.known_revisions(),
            head_revision=migrations.head_revision(),
        ),
    )
    Tokens(app, secret, settings)
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


async def prepare(settings: Settings) -> None:
    """Bring the schema up to date and make the first administrator, once among all instances.

    Waits for a database that is not there yet. A password that had to be made up goes to standard
    output, this once and nowhere else.

    Raises:
        StartFailed: the database stays away or refuses us, or its schema is newer.
        OperatorError: the administrator's name, address or password is not acceptable.
    """

    async def work(connection: AsyncConnection) -> None:
        await migrations.upgrade(connection)
        await _ensure_admin(connection, settings)

    await at_schema(settings, work)


async def at_schema(settings: Settings, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Do work at the schema, as the only one of all instances.

    Waits for a database that is not there yet, as when everything starts at once; ``work`` may
    then run again from its start.

    Raises:
        StartFailed: the database stays away or refuses us.
    """
    if settings.embedded:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + settings.database_start_timeout
    while True:
        try:
            async with migrations.exclusive(settings) as connection:
                return await work(connection)
        except (DBAPIError, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if is_refusal(error) or time.monotonic() > deadline:
                raise StartFailed(f"The database cannot be used: {cause}") from error
            _log.warning("waiting_for_database", reason=str(cause))
            await asyncio.sleep(0.5)


async def _ensure_admin(connection: AsyncConnection, settings: Settings) -> None:
    async with AsyncSession(
        connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
    ) as session:
        if await auth_service.has_admin(session):
            return
        given = settings.admin_password
        password = given.get_secret_value() if given else token_urlsafe(15)
        auth_service.check_admin(
            username=settings.admin_username,
            email=settings.admin_email,
            password=password,
            min_length=settings.password_min_length,
        )
        passwords = Passwords(settings)
        try:
            await auth_service.sign_up(
                session,
                username=settings.admin_username,
                email=settings.admin_email,
                password_hash=await passwords.hash(password),
                role=Role.ADMIN,
            )
            await session.commit()
        except Taken:
            # Not a reason to stay down: the accounts are somebody's already.
            _log.warning("admin_missing", reason="ADMIN_USERNAME or ADMIN_EMAIL is taken")
            return
        finally:
            passwords.close()
    _log.info("admin_created", username=settings.admin_username)
    if given is None:
        sys.stdout.write(
            f"The administrator {settings.admin_username!r} was made. Password, shown only now: "
            f"{password}\n"
        )
        sys.stdout.flush()
