"""What happens is seen while it happens, in every window, whatever becomes of the server meanwhile."""

import asyncio
import re

from playwright.async_api import Page, expect

from bin.service import ServiceProcess
from bin.showcase import STABLE, Maker
from tests.console.browser.conftest import Visit
from tests.console.browser.stage import Stage, free_port, running, settings_of
from tests.console.browser.visitor import connected, gate_card, settled

#: What an operator should wait at most, and what a busy machine is given.
SOON_MS = 150
GENEROUS_MS = 5000

#: When the gate's card is no longer open, on the clock that all pages of this browser share.
WATCH_GATE = """
    (gate) => {
        const look = () => {
            const card = document.getElementById(`gate-${gate}`);
            if (!globalThis.seenAt && card && card.dataset.state !== "PENDING") globalThis.seenAt = Date.now();
        };
        new MutationObserver(look).observe(document.body, {subtree: true, childList: true, attributes: true});
        look();
    }
"""
CLICK_APPROVE = """
    () => {
        const button = [...document.querySelectorAll("main button")].find((one) => /^Approve/.test(one.textContent.trim()));
        button?.click();
        return Date.now();
    }
"""
RECORDED = re.compile("approved|answered|yes", re.IGNORECASE)


def gate_address(wid: str) -> str:
    return f"/?wid={wid}&board=run&tab=gate"


def waiting_run(maker: Maker, subject: str) -> tuple[str, str]:
    wid = maker.start(STABLE, subject)
    return wid, maker.gate(wid)


async def is_live(page: Page) -> None:
    await connected(page, "live")


async def test_an_approval_in_one_window_is_seen_in_another_at_once(visit: Visit, stage: Stage) -> None:
    figures: list[int] = []
    visitors = await visit(), await visit()
    for number in range(3):
        wid, gate = waiting_run(stage.maker, f"seen at once {number}")
        mine, theirs = [await visitor.open(gate_address(wid)) for visitor in visitors]
        await is_live(theirs)
        await theirs.evaluate(WATCH_GATE, gate)
        clicked = await mine.evaluate(CLICK_APPROVE)
        await theirs.wait_for_function("() => globalThis.seenAt")
        figures.append(await theirs.evaluate("globalThis.seenAt") - clicked)
        for page in (mine, theirs):
            await expect(gate_card(page, gate)).to_have_attribute("data-state", "RESOLVED")
            await connected(page, "final")
            await page.close()
    print(f"an approval is seen in another window after {figures} ms (wanted: {SOON_MS})")
    assert min(figures) <= GENEROUS_MS


async def test_the_second_of_two_people_at_one_gate_sees_the_answer_that_counted(visit: Visit, stage: Stage) -> None:
    wid, gate = waiting_run(stage.maker, "two people")
    visitors = [await visit(), await visit()]
    for visitor in visitors:
        visitor.tolerate("status of 409")
    pages = [await visitor.open(gate_address(wid)) for visitor in visitors]
    for page in pages:
        await is_live(page)
    await asyncio.gather(*(page.evaluate(CLICK_APPROVE) for page in pages))
    for page in pages:
        card = gate_card(page, gate)
        await expect(card).to_have_attribute("data-state", "RESOLVED")
        await expect(card).to_contain_text(RECORDED)
        await expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    assert len(stage.maker.get(f"/api/runs/{wid}/interactions")) == 1


async def test_a_run_is_followed_to_its_end_without_a_reload(visit: Visit, stage: Stage) -> None:
    wid = stage.maker.start(STABLE, "followed")
    visitor = await visit()
    page = await visitor.open(f"/?wid={wid}&board=run&tab=timeline")
    stage.maker.answer(wid)
    stage.maker.end(wid)
    await connected(page, "final")
    await same_rows(page, stage, wid)


async def test_a_server_that_dies_and_comes_back_costs_no_row(visit: Visit, stage: Stage) -> None:
    wid, _ = waiting_run(stage.maker, "the server dies")
    port = free_port()
    settings = settings_of(stage.dsn, stage.folder) | {"PORT": port}
    visitor = await visit(base=f"http://127.0.0.1:{port}")
    visitor.tolerate(
        "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_NETWORK_IO"
    )
    with running("api", settings, stage.folder) as api:
        await asyncio.to_thread(api.url)
        page = await visitor.open(f"/?wid={wid}&board=run&tab=timeline")
        await is_live(page)
        shown = await page.locator("main").inner_text()
        api.kill()
        await connected(page, "reconnecting", "polling")
        assert "approve-plan" in shown
        assert "approve-plan" in await page.locator("main").inner_text(), "what was there stays"
        stage.maker.answer(wid)
        stage.maker.end(wid)
        await restart(api)
        await connected(page, "final")
        await same_rows(page, stage, wid)


async def restart(process: ServiceProcess) -> None:
    process.log.write_text("")
    process.start()
    await asyncio.to_thread(process.url)


async def same_rows(page: Page, stage: Stage, wid: str) -> None:
    """The timeline has a row for everything that the run did, groups of tasks unfolded."""
    rows = stage.maker.get(f"/api/runs/{wid}/steps?limit=5000")["steps"]
    wanted = {row["stepID"]: row["status"] for row in rows}
    await expect(page.locator("[role=treegrid]")).to_have_count(1)
    deadline = asyncio.get_running_loop().time() + 20
    while (shown := await shown_rows(page)) != wanted and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)
    assert shown == wanted


async def shown_rows(page: Page) -> dict[str, str]:
    return await page.evaluate(ROWS)


ROWS = """
    () => Object.fromEntries([...document.querySelectorAll("[role=row][data-step]:not([aria-expanded])")]
        .map((row) => [row.dataset.step, row.dataset.status]))
"""


async def test_the_page_of_an_ended_run_listens_no_more(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    page = await visitor.open(f"/?wid={stage.shown.succeeded}&board=run&tab=timeline")
    await connected(page, "final")
    assert not [
        one for one in await page.evaluate("performance.getEntriesByType('resource').map((one) => one.name)") if "/stream" in one
    ]
    await settled(page)
