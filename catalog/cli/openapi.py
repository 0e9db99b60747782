"""``catalog openapi``."""

from secrets import token_hex
from typing import BinaryIO

import click
import orjson

from catalog.app import create_app
from catalog.cli.base import settings_for_command
from catalog.http.openapi import document_of, with_server


@click.command()
@click.option("--output", type=click.File("wb", atomic=True), default="-", help="File to write to.")
@click.option("--server", help="URL of the service; by default that of CATALOG_BIND.")
def openapi(output: BinaryIO, server: str | None) -> None:
    """Print the description of the API (OpenAPI 3.1).

    Needs neither a database nor a key, and creates no other files.
    """
    # Nothing is signed, but an app without a key would generate one and keep it in a file.
    settings = settings_for_command(jwt_secret_key=token_hex(32), env="development", tracing="off")
    app = create_app(settings)
    default_server = "/" if settings.bind.path else settings.bind.url
    document = with_server(document_of(app), server or default_server)
    output.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
