"""The composition root: the one module that knows every room of the house."""

from quart import Quart

from catalog.settings import Settings


def create_app(settings: Settings) -> Quart:
    """Put the service together; nothing is opened until it starts serving."""
    app = Quart("catalog")

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    return app


def begin_drain(app: Quart) -> None:
    """Make the readiness check fail and let every answer close its connection."""


async def prepare(settings: Settings) -> None:
    """Bring the schema up to date and make the first administrator, once among all instances."""
