"""``GET /api/products?limit=100`` against the obvious implementation; see ``contest.py``.

python -m tests.load.list_products --url mysql://catalog:catalog@127.0.0.1:3306/catalog
"""

from typing import Any

import click

from tests.load.contest import Contestant, compete, environment_for, options, run_catalog


@click.command()
@click.option("--products", default=100_000, show_default=True, help="Products to seed up to.")
@options
def main(url: str, products: int, **turns: Any) -> None:
    """Compare and print a table in Markdown."""
    environment = environment_for(url)
    run_catalog(environment, "migrate")
    run_catalog(environment, "seed", "--users", "100", "--products", str(products))

    def prepare(contestant: Contestant) -> list[str]:
        return [f"{contestant.url}/api/products?limit=100"]

    compete(url, prepare, **turns)


if __name__ == "__main__":
    main()
