"""The API documentation has no faults that axe finds, in either colour scheme."""

import json

import pytest

from tests.browser import browser, needs_browser
from tests.clients.tools import NODE_MODULES
from tests.server.service import Service

pytestmark = [needs_browser, pytest.mark.timeout(300)]

AXE = NODE_MODULES / "axe-core" / "axe.min.js"

# One of each kind: with a query, with a body, with a condition, without any.
OPEN = ("products-list_products", "products-change_product", "products-delete_product")


class TestAccessibility:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_axe_finds_no_violations(self, service: Service, scheme: str) -> None:
        async with browser(service.url) as chromium:
            # The policy forbids the script that looks for faults.
            page = await chromium.window(bypass_csp=True, color_scheme=scheme)
            await page.goto("/docs")
            await page.wait_for_selector("#swagger-ui[data-ready]")
            for operation in OPEN:
                block = page.locator(f"#operations-{operation}")
                await block.locator(".opblock-summary-control").click()
                await block.locator(".try-out__btn").click()
            await page.add_script_tag(path=AXE)

            found = await page.evaluate("axe.run().then((result) => result.violations)")

            assert len(await page.query_selector_all(".execute")) == len(OPEN)
            assert found == [], json.dumps(found, indent=1)[:5000]

    async def test_axe_finds_a_field_without_a_name(self, service: Service) -> None:
        async with browser(service.url) as chromium:
            page = await chromium.window(bypass_csp=True)
            await page.goto("/docs")
            await page.wait_for_selector("#swagger-ui[data-ready]")
            await page.evaluate("document.body.append(document.createElement('select'))")
            await page.add_script_tag(path=AXE)

            found = await page.evaluate("axe.run().then((result) => result.violations)")

            assert "select-name" in {violation["id"] for violation in found}
