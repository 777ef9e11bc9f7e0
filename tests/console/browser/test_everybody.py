"""The console is for everybody: in both themes, at every width, by keyboard alone, through a screen reader."""

import re

import pytest
from playwright.async_api import expect

from bin.showcase import STABLE, addresses
from tests.console.browser.axe import violations_in_both_themes
from tests.console.browser.conftest import Visit
from tests.console.browser.stage import Stage
from tests.console.browser.visitor import gate_card, settled

WIDTHS = (1440, 768, 390)
NAMES = [
    "run-timeline",
    "run-gate",
    "run-artifacts",
    "run-patches",
    "run-proof",
    "run-failed",
    "hitl-inbox",
    "ops",
    "throughput",
    "recipe",
    "signoff",
]


@pytest.mark.parametrize("name", NAMES)
async def test_axe_finds_nothing_in_either_theme_and_no_width_makes_the_page_scroll_sideways(
    visit: Visit, stage: Stage, name: str
) -> None:
    visitor = await visit()
    page = await visitor.open(addresses(stage.shown)[name])
    assert len(await page.locator("main").inner_text()) > 100, "there is something to see"
    assert await violations_in_both_themes(page) == []
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 800})
        await settled(page)
        assert await page.evaluate(TOO_WIDE) == [], width


async def test_every_address_is_among_those_that_axe_looks_at(stage: Stage) -> None:
    assert list(addresses(stage.shown)) == NAMES


#: The page may not scroll sideways; what is wider inside of it must scroll within its own box.
TOO_WIDE = """
    () => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")]
        .filter((one) => one.getBoundingClientRect().right > innerWidth + 1).slice(0, 5)
        .map((one) => `${one.tagName}.${one.className} ${Math.round(one.getBoundingClientRect().right)}`)
"""


# By keyboard ---------------------------------------------------------------------------------------------------------------


async def test_the_first_tab_stop_skips_to_the_content(visit: Visit) -> None:
    visitor = await visit()
    page = await visitor.open("/?board=ops")
    await page.keyboard.press("Tab")
    assert re.search("skip", await page.evaluate("document.activeElement.textContent"), re.IGNORECASE)
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.querySelector('main').contains(document.activeElement)")


async def test_keys_lead_to_every_board_and_tab(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    page = await visitor.open(f"/?wid={stage.shown.waiting}&board=run&tab=timeline")
    for key, tab in zip("2345", ["Gate", "Artifacts", "Patches", "Proof"], strict=True):
        await page.keyboard.press(key)
        await expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
    for key, board in {"i": "Inbox", "o": "Ops", "t": "Throughput", "r": "Recipes", "s": "Sign-off"}.items():
        await page.keyboard.press("g")
        await page.keyboard.press(key)
        await expect(page.locator("nav a[aria-current=page]")).to_have_text(re.compile(board))


async def test_keys_are_told_and_the_palette_finds_a_run_by_its_id(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    page = await visitor.open("/?board=signoff")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.type(stage.shown.failed)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await settled(page)
    assert stage.shown.failed in page.url


async def test_a_key_is_a_letter_where_one_types(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    page = await visitor.open(f"/?wid={stage.shown.succeeded}&board=run&tab=timeline")
    await page.keyboard.press("/")
    await page.keyboard.type("2cut?")
    assert await page.evaluate("document.activeElement.value") == "2cut?"
    await expect(page.get_by_role("tab", name="Timeline")).to_have_attribute("aria-selected", "true")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_a_gate_is_answered_by_keyboard_alone_and_no_slip_answers_it(visit: Visit, stage: Stage) -> None:
    wid = stage.maker.start(STABLE, "keyboard alone")
    gate = stage.maker.gate(wid)
    visitor = await visit()
    page = await visitor.open(f"/?wid={wid}&board=run&tab=gate")
    card = gate_card(page, gate)
    await page.keyboard.press("a")
    await expect(page.get_by_role("button", name="Approve")).to_be_focused()
    await expect(card).to_have_attribute("data-state", "PENDING")
    await page.keyboard.press("Enter")
    await expect(card).to_have_attribute("data-state", "RESOLVED")
    assert [one["origin"] for one in stage.maker.get(f"/api/runs/{wid}/interactions")] == ["manual"]


async def test_a_rejection_wants_its_reason_first(visit: Visit, stage: Stage) -> None:
    wid = stage.maker.start(STABLE, "a rejection")
    gate = stage.maker.gate(wid)
    visitor = await visit()
    page = await visitor.open(f"/?wid={wid}&board=run&tab=gate")
    await page.keyboard.press("r")
    focused = await page.evaluate("document.activeElement.tagName")
    if focused != "TEXTAREA":
        await page.keyboard.press("Enter")
    await expect(page.locator("textarea:focus")).to_have_count(1)
    assert stage.maker.get(f"/api/runs/{wid}/interactions") == []
    await page.keyboard.type("The ledger is frozen until Monday.")
    await page.keyboard.press("Control+Enter")
    await expect(gate_card(page, gate)).to_have_attribute("data-state", "RESOLVED")
    assert stage.maker.end(wid) == "ERROR"
