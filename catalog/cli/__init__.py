"""The ``catalog`` command."""

import click

from catalog import __version__
from catalog.cli.check import check
from catalog.cli.create_admin import create_admin
from catalog.cli.entry import Commands
from catalog.cli.migrate import migrate
from catalog.cli.openapi import openapi
from catalog.cli.seed import seed
from catalog.cli.serve import serve


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="catalog")
def main() -> None:
    """A catalog microservice: users and products over HTTP, with JWT sign-in.

    Settings are read from the environment: DATABASE_URL, JWT_SECRET_KEY, ADMIN_* and CATALOG_*.
    `catalog check` tells whether they will do.
    """


for command in (serve, migrate, create_admin, seed, check, openapi):
    main.add_command(command)
