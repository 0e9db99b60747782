"""``catalog serve``."""

import sys

import click

from catalog.observability.logs import configure_logging, logger
from catalog.server.supervisor import supervise
from catalog.settings import load_settings, unknown_variables

log = logger("catalog.cli")


@click.command()
@click.option("--bind", help="host:port, [address]:port or unix:/path; overrides CATALOG_BIND.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port; overrides that of --bind or CATALOG_BIND."
)
@click.option("--workers", type=int, help="Number of worker processes; overrides CATALOG_WORKERS.")
def serve(bind: str | None, port: int | None, workers: int | None) -> None:
    """Serve HTTP until stopped.

    Without --bind, --port and CATALOG_BIND it listens on all addresses at PORT, if that is set.
    SIGTERM drains and stops; SIGHUP replaces the workers without refusing a request.
    """
    settings = load_settings(bind=bind, workers=workers)
    if port is not None:
        settings = settings.with_port(port)
    configure_logging(settings)
    for name in unknown_variables():
        log.warning("unknown_setting", variable=name)
    sys.exit(supervise(settings))
