"""Measurement of whether the time of a rejected log-in reveals which accounts exist.

Sends wrong passwords for existing and unknown names, in random order on one connection, and
computes how well the latency separates the two: the probability that a known name takes longer than
an unknown one (the area under the ROC curve, by the rank sum of Mann and Whitney). 0.5 means not at
all. Needs a running service with ``CATALOG_LOGIN_LIMIT=off`` and:

    catalog seed --users 300 --products 0 --password "correct horse battery staple"
    python -m tests.load.timing --url http://127.0.0.1:8000 --password "correct horse …"
"""

import asyncio
import random
import statistics
import time

import click

from catalog.auth.seed_data import username_of
from tests.load.sign_in import login_of
from tests.server.service import Connection

# No sample accounts have these numbers.
FIRST_UNKNOWN = 50_000_001
WARM_UP = 10


@click.command()
@click.option("--url", required=True, help="Where the service runs: http://127.0.0.1:8000.")
@click.option("--password", required=True, help="Of the sample accounts, to see that they exist.")
@click.option("--count", default=300, show_default=True, help="Guesses of each kind.")
def main(url: str, password: str, count: int) -> None:
    """Measure and print the area under the curve, and both medians."""
    known, unknown = asyncio.run(measure(url, password, count))
    # Without any difference, 95 % of runs fall into this range.
    error = 1.96 * ((2 * count + 1) / (12 * count * count)) ** 0.5
    click.echo(f"AUC {area_under_curve(known, unknown):.3f} (0.5 ± {error:.3f} by chance alone)")
    for name, times in (("known", known), ("unknown", unknown)):
        click.echo(f"{name}: {len(times)} guesses, median {statistics.median(times):.2f} ms")


async def measure(url: str, password: str, count: int) -> tuple[list[float], list[float]]:
    """Try each known and unknown name once; return the latencies in milliseconds."""
    connection = await Connection.open(url)
    first, last = username_of(1), username_of(count)
    for name in (first, last):
        await connection.send(login_of(name, password))
        if (await connection.answer()).status != 200:
            raise click.ClickException(f"{name} cannot log in; seed the sample accounts first.")
    numbers = [*range(1, count + 1), *range(FIRST_UNKNOWN, FIRST_UNKNOWN + count)]
    random.shuffle(numbers)
    # Warm-up: the first answers include one-time initialization in the worker.
    numbers = [*range(FIRST_UNKNOWN + count, FIRST_UNKNOWN + count + WARM_UP), *numbers]
    known: list[float] = []
    unknown: list[float] = []
    for turn, number in enumerate(numbers):
        guess = login_of(username_of(number), "not the password of anyone")
        began = time.perf_counter()
        await connection.send(guess)
        answer = await connection.answer()
        milliseconds = (time.perf_counter() - began) * 1000
        if answer.status != 401:
            raise click.ClickException(f"A guess was answered with {answer.status}.")
        if turn >= WARM_UP:
            (known if number <= count else unknown).append(milliseconds)
    await connection.close()
    return known, unknown


def area_under_curve(ones: list[float], others: list[float]) -> float:
    """Return the probability that one of the first exceeds one of the second; ties count half."""
    wins = sum((one > other) + (one == other) / 2 for one in ones for other in others)
    return wins / (len(ones) * len(others))


if __name__ == "__main__":
    main()
