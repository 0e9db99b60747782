"""``catalog conformance``."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catalog.errors import CannotCheck

if TYPE_CHECKING:
    from catalog.conformance import Report


@click.command()
@click.argument("url")
@click.option("--only", default="", help="Check only rules whose name or section has this text.")
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the report as JUnit XML to this file.",
)
def conformance(url: str, only: str, junit: Path | None) -> None:
    """Check whether the deployment at URL keeps the API's contract.

    Creates throw-away accounts with products, and deletes them at the end. Exits with 1 if a rule
    is broken.
    """
    report = asyncio.run(_checked(url, only))
    for line in report.lines():
        click.echo(line)
    if junit is not None:
        junit.write_bytes(report.junit())
    if not report.is_green:
        raise SystemExit(1)


async def _checked(url: str, only: str) -> "Report":
    try:
        # Imported late: the service itself needs no HTTP client.
        import httpx

        from catalog.conformance import RULES, check_conformance, rules_with
    except ImportError as error:
        fault = f"It needs packages: pip install 'catalog[client]' ({error})"
        raise CannotCheck(fault) from None
    if not rules_with(only):
        sections = ", ".join(dict.fromkeys(rule.section for rule in RULES))
        raise click.BadParameter(
            f"no rule's name or section contains {only!r}; the sections are: {sections}.",
            param_hint="'--only'",
        )
    try:
        return await check_conformance(url, only=only)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CannotCheck(f"{url}: {error!r}") from error
