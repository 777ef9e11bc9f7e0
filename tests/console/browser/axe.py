"""What axe finds on a page. It is put in by the debugger, since the page's policy takes no foreign script."""

import json
from typing import Any

from axe_playwright_python.base import AXE_FILE_PATH
from playwright.async_api import Page

from tests.console.browser.conftest import THEMES

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


async def violations(page: Page, run_only: dict[str, Any] | None = None) -> list[str]:
    """A line for each place. run_only: which rules, as axe has it; else all of RULES."""
    debugger = await page.context.new_cdp_session(page)
    if not await page.evaluate("'axe' in globalThis"):
        await debugger.send("Runtime.evaluate", {"expression": AXE_FILE_PATH.read_text()})
    options = json.dumps({"runOnly": run_only or {"type": "tag", "values": RULES}, "resultTypes": ["violations"]})
    answer = await debugger.send(
        "Runtime.evaluate", {"expression": f"axe.run(document, {options})", "awaitPromise": True, "returnByValue": True}
    )
    await debugger.detach()
    found: list[dict[str, Any]] = answer["result"]["value"]["violations"]
    return [
        f"{one['id']}: {one['help']}: {node['html'][:160]} ({node['failureSummary'][:300]})"
        for one in found
        for node in one["nodes"]
    ]


async def violations_in_both_themes(page: Page) -> list[str]:
    """All rules in one theme; in the other those about colours, since a theme changes nothing else."""
    light, dark = THEMES
    await page.emulate_media(color_scheme=light)
    found = await violations(page)
    await page.emulate_media(color_scheme=dark)
    return found + await violations(page, {"type": "rule", "values": ["color-contrast"]})
