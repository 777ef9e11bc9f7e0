"""What a page does while nobody looks at it, and what it makes of a hand that drags, and of paper."""

import re

from playwright.async_api import Page, Request, expect

from bin.showcase import STABLE
from tests.console.browser.conftest import Visit
from tests.console.browser.stage import Stage
from tests.console.browser.visitor import connected, gate_card, settled

#: As browsers say it when another tab comes to the front, and when this one does again.
TURN = """
    (hidden) => {
        Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
        document.dispatchEvent(new Event("visibilitychange"));
    }
"""
HOUR_MS = 3_600_000


def asked(page: Page) -> list[str]:
    """The addresses that the page asks the service for from now on."""
    found: list[str] = []

    def note(request: Request) -> None:
        if "/api/" in request.url:
            found.append(request.url)

    page.on("request", note)
    return found


async def test_a_run_in_the_background_is_not_followed_and_catches_up_when_it_is_seen(visit: Visit, stage: Stage) -> None:
    wid = stage.maker.start(STABLE, "out of sight")
    gate = stage.maker.gate(wid)
    page = await (await visit()).open(f"/?wid={wid}&board=run&tab=gate")
    await connected(page, "live")
    await page.evaluate(TURN, True)
    await connected(page, "paused")
    requests = asked(page)
    stage.maker.answer(wid)
    stage.maker.end(wid)
    await expect(gate_card(page, gate)).to_have_attribute("data-state", "PENDING")
    assert requests == [], "nothing is asked for while nobody looks"
    await page.evaluate(TURN, False)
    await expect(gate_card(page, gate)).to_have_attribute("data-state", "RESOLVED")
    await connected(page, "final")


async def test_a_board_in_the_background_asks_for_nothing_and_is_read_again_when_it_is_seen(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    page = await visitor.context.new_page()
    await page.clock.install()
    await page.close()
    page = await visitor.open("/?board=ops&q=name:RunIntent")
    await connected(page, "live")
    await page.evaluate(TURN, True)
    await connected(page, "paused")
    requests = asked(page)
    wid = stage.maker.start(STABLE, "while nobody looked")
    await page.clock.fast_forward(HOUR_MS)
    assert requests == []
    await page.evaluate(TURN, False)
    await expect(page.get_by_role("button", name=re.compile("newer workflow"))).to_be_visible()
    await connected(page, "live")
    assert [url for url in requests if "/api/ops/wf?" in url]
    stage.maker.gate(wid)


async def test_a_board_is_told_what_is_new_and_does_not_move_what_is_read(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    page = await visitor.open("/?board=ops&q=name:RunIntent")
    await connected(page, "live")
    ids = page.locator("tbody tr code[title]")
    first = await ids.first.get_attribute("title")
    wid = stage.maker.start(STABLE, "told as it comes")
    newer = page.get_by_role("button", name=re.compile("newer workflow"))
    await expect(newer).to_be_visible()
    await expect(ids.first).to_have_attribute("title", first or "")
    await newer.click()
    await expect(page.locator("tbody tr").first).to_contain_text("told as it comes")
    stage.maker.gate(wid)


async def test_a_board_without_hints_is_read_every_few_seconds_and_says_so(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    visitor.tolerate("ERR_FAILED")
    await visitor.context.route("**/api/ops/stream*", lambda route: route.abort())
    page = await visitor.open("/?board=ops&q=name:RunIntent")
    await connected(page, "polling")
    wid = stage.maker.start(STABLE, "found by looking")
    await expect(page.get_by_role("button", name=re.compile("newer workflow"))).to_be_visible()
    stage.maker.gate(wid)


async def test_a_part_of_a_long_run_is_dragged_out_and_let_go_again(visit: Visit, stage: Stage) -> None:
    wid = stage.long_run("dragged", 400)
    page = await (await visit()).open(f"/?wid={wid}&board=run&tab=timeline")
    strip = page.get_by_role("img", name=re.compile("All of the run"))
    box = await strip.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    await page.mouse.move(box["x"] + box["width"] * 0.25, y)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.4, y, steps=4)
    await page.mouse.move(box["x"] + box["width"] * 0.5, y)
    await page.mouse.up()
    await expect(page).to_have_url(re.compile(r"from=\d+&to=\d+"))
    found = re.search(r"from=(\d+)&to=(\d+)", page.url)
    assert found is not None
    start, end = int(found[1]), int(found[2])
    took = 400 * 60
    assert abs(start - took * 0.25) < took * 0.03, page.url
    assert abs(end - took * 0.5) < took * 0.03, page.url
    await page.reload()
    await settled(page)
    await page.get_by_role("button", name="Whole run").click()
    await expect(page).not_to_have_url(re.compile("from="))


async def test_the_sign_off_prints_as_a_page_of_its_own(visit: Visit) -> None:
    page = await (await visit(theme="dark")).open("/?board=signoff")
    await page.emulate_media(media="print")
    await expect(page.locator(".nav")).to_be_hidden()
    await expect(page.get_by_role("button", name="Print")).to_be_hidden()
    await expect(page.locator(".verdict")).to_be_visible()
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    dark = await page.evaluate(DARK_ON_PAPER)
    assert dark == [], "nothing that is made for a dark screen"
    await page.set_viewport_size({"width": 720, "height": 1000})
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits a sheet"


#: Text that is too light to be read on paper, and grounds that are too dark to be printed.
DARK_ON_PAPER = """
    () => {
        const light = (colour) => {
            const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
            return a === 0 ? null : (r * 2 + g * 5 + b) / 8 / 255;
        };
        const looks = [...document.querySelectorAll("main *")].filter((one) => one.checkVisibility() && one.textContent.trim())
            .map((one) => [one, getComputedStyle(one)]);
        return looks.filter(([one, { backgroundColor, color }]) => {
            const ground = light(backgroundColor);
            return (ground !== null && ground < 0.7 && !one.closest("svg, .btn")) || light(color) > 0.75;
        }).slice(0, 5).map(([one, { backgroundColor, color }]) => `${one.tagName}.${one.className} ${color} on ${backgroundColor}`);
    }
"""
