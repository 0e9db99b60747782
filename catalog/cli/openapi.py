"""``catalog openapi``."""

from secrets import token_hex
from typing import BinaryIO

import click
import orjson

from catalog.app import create_app
from catalog.cli.base import settings_for_command
from catalog.http.openapi import document_of


@click.command()
@click.option("--output", type=click.File("wb", atomic=True), default="-", help="File to write to.")
def openapi(output: BinaryIO) -> None:
    """Print the description of the API (OpenAPI 3.1).

    Needs neither a database nor a key, and creates no other files.
    """
    # Nothing is signed, but an app without a key would generate one and keep it in a file.
    settings = settings_for_command(jwt_secret_key=token_hex(32), env="development", tracing="off")
    app = create_app(settings)
    output.write(orjson.dumps(document_of(app), option=orjson.OPT_INDENT_2) + b"\n")
