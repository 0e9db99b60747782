"""Conformance: green where the contract is kept, red at each break of it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest

from catalog.client import AsyncClient
from catalog.conformance import check_conformance
from catalog.conformance.report import Outcome, Report
from catalog.conformance.rule import Rule
from catalog.conformance.rules import RULES
from catalog.conformance.run import check
from catalog.conformance.site import Site
from tests.conformance.breaking import BREAKS, BreakingProxy
from tests.db.support import on_mysql
from tests.engines import Engine
from tests.server.nginx import needs_nginx, nginx
from tests.server.service import Catalog, Service

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Start one service for all tests of breaks."""
    async with Catalog(tmp_path_factory.mktemp("conformance")).start("--workers=2") as service:
        yield await service.serving()


@pytest.fixture(scope="module")
async def proxy() -> AsyncIterator[BreakingProxy]:
    """Return the proxy that breaks the contract on demand."""
    async with BreakingProxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
async def site(running: Service, proxy: BreakingProxy) -> AsyncIterator[Site]:
    """Return the service behind that proxy, with the accounts of a run."""
    async with httpx.AsyncClient(base_url=running.url, transport=proxy, timeout=30) as http:
        site = Site(http)
        await site.begin()
        yield site


class TestRules:
    @each_rule
    async def test_rule_is_kept_by_the_service_and_broken_by_its_break(
        self, site: Site, proxy: BreakingProxy, rule: Rule
    ) -> None:
        proxy.breach = BREAKS[rule.name]
        try:
            fault = await check(rule, site)
        finally:
            proxy.breach = None

        assert fault
        assert not fault.startswith("The check did not end"), fault
        assert await check(rule, site) == ""

    def test_every_rule_has_a_break_and_a_name_of_its_own(self) -> None:
        assert [rule.name for rule in RULES] == list(BREAKS)
        assert len({rule.sentence for rule in RULES}) == len(RULES)


class TestDeployments:
    @pytest.mark.timeout(300)
    async def test_service_is_green_and_nothing_is_left_behind(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        url = await engine.create_database(tmp_path)
        database = url.render_as_string(hide_password=False)
        async with Catalog(tmp_path).start("--workers=2", DATABASE_URL=database) as service:
            await service.serving()

            report = await check_conformance(service.url)

            assert report.is_green, "\n".join(report.lines())
            async with AsyncClient(service.url) as client:
                assert [product async for product in client.products()] == []
        await engine.drop_database(url)

    # nginx does the same before every engine.
    @on_mysql
    @needs_nginx
    @pytest.mark.timeout(300)
    async def test_service_behind_nginx_is_green(self, engine: Engine, tmp_path: Path) -> None:
        url = await engine.create_database(tmp_path)
        database = url.render_as_string(hide_password=False)
        trusted = {"CATALOG_TRUSTED_PROXIES": "127.0.0.1/32"}
        async with Catalog(tmp_path).start(
            "--workers=2", DATABASE_URL=database, **trusted
        ) as service:
            await service.serving()
            async with nginx(service.url) as front:
                report = await check_conformance(front.url)

            assert report.is_green, "\n".join(report.lines())
        await engine.drop_database(url)


class TestReport:
    def test_junit_has_a_case_for_each_rule_and_the_fault_of_broken_ones(self) -> None:
        first, second = RULES[:2]
        outcomes = [Outcome(first, "", 0.5), Outcome(second, 'It is <"\x00ä">', 0.25)]
        report = Report("http://catalog.example", outcomes)

        (suite,) = ET.fromstring(report.junit())  # noqa: S314 (our own)

        assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("2", "1", "0.750")
        kept, broken = suite
        assert (kept.get("name"), len(kept)) == (first.sentence, 0)
        (failure,) = broken
        assert failure.get("message") == 'It is <"\\x00ä">'
        assert not report.is_green
        assert f"  BROKEN {second.sentence}" in list(report.lines())

    def test_account_that_stays_is_reported(self) -> None:
        report = Report("http://catalog.example", [Outcome(RULES[0], "", 1)], ["conformance-x"])

        assert not report.is_green
        assert "conformance-x" in list(report.lines())[-1]


class TestCommand:
    async def run(self, *arguments: str | Path) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "catalog", "conformance", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    async def test_command_prints_the_report_and_writes_junit(
        self, running: Service, tmp_path: Path
    ) -> None:
        file = tmp_path / "report.xml"

        code, output = await self.run(running.url, "--only", "Bulk", "--junit", file)

        assert code == 0, output
        assert "7 of 7 rules kept" in output
        assert len(ET.parse(file).findall(".//testcase")) == 7  # noqa: S314 (our own)

    async def test_text_that_is_in_no_rule_is_a_usage_error(self) -> None:
        code, output = await self.run("http://127.0.0.1:9", "--only", "lsits")

        assert code == 2
        assert "no rule's name or section contains 'lsits'" in output
        assert "Everywhere, Accounts, API keys, Products, Lists, Bulk, Changes" in output

    async def test_unreachable_deployment_is_an_error(self) -> None:
        code, output = await self.run("http://127.0.0.1:9")

        assert (code, output.splitlines()[-1].partition(":")[0]) == (
            1,
            "The deployment cannot be checked",
        )

    async def test_service_that_breaks_a_rule_fails_the_command(self, tmp_path: Path) -> None:
        async with Catalog(tmp_path).start(CATALOG_PASSWORD_MIN_LENGTH="8") as service:
            await service.serving()
            # Another service's pages in place of this one's.
            code, output = await self.run(f"{service.url}/elsewhere")

        assert code == 1
        assert "cannot be checked" in output
