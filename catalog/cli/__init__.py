"""The ``catalog`` command."""

from pathlib import Path

import click

from catalog import __version__
from catalog.cli.base import Commands
from catalog.settings.env_file import load_env_file

HOMES = {
    "serve": "catalog.cli.serve",
    "migrate": "catalog.cli.migrate",
    "create-admin": "catalog.cli.create_admin",
    "reset-password": "catalog.cli.reset_password",
    "end-sessions": "catalog.cli.end_sessions",
    "import": "catalog.cli.import_",
    "export": "catalog.cli.export",
    "seed": "catalog.cli.seed",
    "check": "catalog.cli.check",
    "conformance": "catalog.cli.conformance",
    "openapi": "catalog.cli.openapi",
    "secrets": "catalog.cli.secrets",
}


@click.group(cls=Commands, homes=HOMES)
@click.version_option(__version__, prog_name="catalog")
@click.option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with settings, NAME=value; variables that are set win over it.",
)
def main(env_file: Path | None) -> None:
    """A catalog microservice: users and products over HTTP, with JWT sign-in.

    Settings are read from the environment: DATABASE_URL, JWT_SECRET_KEY, ADMIN_* and CATALOG_*.
    `catalog check` validates them.
    """  # noqa: D401 (it is the command's help)
    if env_file is not None:
        load_env_file(env_file)
