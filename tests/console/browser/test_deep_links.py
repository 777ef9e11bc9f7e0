"""Every board and tab has an address, which alone decides what is seen: linked to, gone back to, loaded again."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.console.browser.conftest import Visit
from tests.console.browser.stage import Stage
from tests.console.browser.visitor import gate_card, settled

BOARDS = {
    "run": "Runs",
    "hitl-inbox": "Inbox",
    "ops": "Ops",
    "throughput": "Throughput",
    "recipe": "Recipes",
    "signoff": "Sign-off",
}
TABS = {"timeline": "Timeline", "gate": "Gate", "artifacts": "Artifacts", "patches": "Patches", "proof": "Proof"}


async def shows_board(page: Page, board: str) -> None:
    await expect(page.locator("nav a[aria-current=page]")).to_have_text(re.compile(BOARDS[board]))
    await expect(page.get_by_role("heading", level=1)).to_have_count(1)


async def shows_tab(page: Page, tab: str) -> None:
    await expect(page.get_by_role("tab", selected=True)).to_have_text(re.compile(TABS[tab]))
    await expect(page.get_by_role("tabpanel")).to_be_visible()


@pytest.mark.parametrize("board", list(BOARDS))
async def test_a_link_opens_its_board_and_a_reload_stays_there(visit: Visit, board: str) -> None:
    visitor = await visit()
    page = await visitor.open(f"/?board={board}")
    await shows_board(page, board)
    title = await page.title()
    await page.reload()
    await settled(page)
    await shows_board(page, board)
    assert await page.title() == title
    assert "Holdfast" in title


@pytest.mark.parametrize("tab", list(TABS))
async def test_a_link_opens_its_tab_and_a_reload_stays_there(visit: Visit, stage: Stage, tab: str) -> None:
    visitor = await visit()
    page = await visitor.open(f"/?wid={stage.shown.waiting}&board=run&tab={tab}")
    await shows_board(page, "run")
    await shows_tab(page, tab)
    await page.reload()
    await settled(page)
    await shows_tab(page, tab)


async def test_back_and_forward_walk_the_boards_and_tabs(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    page = await visitor.open(f"/?wid={stage.shown.waiting}&board=run&tab=timeline")
    for tab in list(TABS)[1:]:
        await page.get_by_role("tab", name=TABS[tab]).click()
        await shows_tab(page, tab)
        assert f"tab={tab}" in page.url
    for board in list(BOARDS)[1:]:
        await page.get_by_role("navigation", name="Boards").get_by_role("link", name=BOARDS[board]).click()
        await settled(page)
        await shows_board(page, board)
        assert f"board={board}" in page.url
    for board in list(BOARDS)[-2:0:-1]:
        await page.go_back()
        await shows_board(page, board)
        await settled(page)
    for tab in list(TABS)[:0:-1]:
        await page.go_back()
        await shows_board(page, "run")
        await shows_tab(page, tab)
    for tab in list(TABS)[2:]:
        await page.go_forward()
        await shows_tab(page, tab)
    await page.go_forward()
    await shows_board(page, "hitl-inbox")


async def test_the_inbox_leads_to_the_gate_and_its_link_focuses_it(visit: Visit, stage: Stage) -> None:
    gate = stage.shown.gates[stage.shown.waiting]
    visitor = await visit()
    page = await visitor.open("/?board=hitl-inbox")
    item = page.locator(f"[data-gate='{gate}']").first
    await item.click()
    await page.get_by_role("link", name=re.compile("open (gate|run)", re.IGNORECASE)).first.click()
    await settled(page)
    await shows_tab(page, "gate")
    assert f"gate={gate}" in page.url
    await page.reload()
    await settled(page)
    card = gate_card(page, gate)
    await expect(card).to_have_attribute("data-state", "PENDING")
    assert await card.evaluate("(card) => card.contains(document.activeElement)")


@pytest.mark.parametrize(
    "path",
    ["/?board=nowhere", "/?wid=ih_nothing&board=run", "/?wid={waiting}&board=run&tab=nothing"],
    ids=["board", "run", "tab"],
)
async def test_what_is_not_there_is_said_with_a_way_on(visit: Visit, stage: Stage, path: str) -> None:
    visitor = await visit()
    visitor.tolerate("status of 404")
    page = await visitor.open(path.format(waiting=stage.shown.waiting), state="ready")
    await expect(page.get_by_role("heading", name="There is no such")).to_be_visible()
    await expect(page.locator("main").get_by_role("link").first).to_be_visible()
    assert (await page.request.get(page.url)).status == 404


async def test_without_a_run_in_its_address_the_console_opens_the_latest_or_the_last_one_opened(
    visit: Visit, stage: Stage
) -> None:
    visitor = await visit()
    page = await visitor.open(f"/?wid={stage.shown.failed}&board=run&tab=proof")
    subject = await page.get_by_role("heading", level=1).text_content()
    assert subject
    await page.goto(visitor.base + "/")
    await settled(page)
    await shows_board(page, "run")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
