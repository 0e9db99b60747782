"""A run of the rules against a deployment."""

import asyncio
import time
from collections.abc import Callable, Sequence

import httpx

from catalog.conformance.report import Outcome, Report
from catalog.conformance.rule import Broken, Rule
from catalog.conformance.rules import RULES
from catalog.conformance.site import Site

RULE_SECONDS = 90.0
"""Time-out of one rule, with the waits for rate limits."""

TIMEOUT_SECONDS = 30.0
"""Time-out of one response; long polls last up to 25 seconds."""


def rules_with(text: str) -> list[Rule]:
    """Return the rules whose name or section contains a text, without regard to case."""
    return [rule for rule in RULES if text.lower() in f"{rule.section} {rule.name}".lower()]


async def check_conformance(
    url: str,
    *,
    only: str = "",
    transport: httpx.AsyncBaseTransport | None = None,
    progress: Callable[[Outcome], object] | None = None,
) -> Report:
    """Check a deployment against the contract, with accounts that are deleted at the end.

    Args:
        url: where it is, with its path if it has one.
        only: checks only the rules whose name or section contains this text.
        transport: the network to it.
        progress: called with each outcome.

    Raises:
        httpx.HTTPError: the deployment cannot be reached, or refuses to create accounts.
    """
    rules = rules_with(only)
    async with httpx.AsyncClient(
        base_url=url, timeout=TIMEOUT_SECONDS, transport=transport
    ) as http:
        site = Site(http)
        try:
            await site.begin()
            outcomes = await _outcomes(site, rules, progress)
        finally:
            # Also when the run is interrupted.
            left = await site.clean_up()
    return Report(url, outcomes, left)


async def _outcomes(
    site: Site, rules: Sequence[Rule], progress: Callable[[Outcome], object] | None
) -> list[Outcome]:
    outcomes = []
    for rule in rules:
        began = time.monotonic()
        fault = await check(rule, site)
        outcomes.append(Outcome(rule, fault, time.monotonic() - began))
        if progress is not None:
            progress(outcomes[-1])
    return outcomes


async def check(rule: Rule, site: Site) -> str:
    """Check one rule; return how it is broken, or an empty text."""
    try:
        async with asyncio.timeout(RULE_SECONDS):
            for account in (site.ada, site.bob):
                await account.keep_fresh()
            await rule.check(site)
    except Broken as fault:
        return str(fault)
    except TimeoutError:
        return f"The check did not end within {RULE_SECONDS:.0f} seconds."
    except Exception as fault:  # noqa: BLE001 (a response of another shape breaks the rule, too)
        return f"{type(fault).__name__}: {fault}"
    return ""
