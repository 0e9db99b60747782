"""The ``catalog`` command."""

import click

from catalog.cli.serve import serve


@click.group()
def main() -> None:
    """A catalog microservice: users and products over HTTP, with JWT sign-in."""


main.add_command(serve)
