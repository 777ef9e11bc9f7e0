"""What lies over a board, or shows in it only now and then, is for everybody too: dialogs, tabs within boards, refusals, nothing there."""

import re
from collections.abc import Awaitable, Callable, Mapping

import pytest
from playwright.async_api import Page, ViewportSize, expect

from bin.showcase import STABLE
from tests.console.browser.axe import violations_in_both_themes
from tests.console.browser.conftest import Visit
from tests.console.browser.stage import Stage
from tests.console.browser.test_everybody import TOO_WIDE
from tests.console.browser.visitor import Visitor, settled

NARROW: ViewportSize = {"width": 390, "height": 800}
WIDE: ViewportSize = {"width": 1440, "height": 900}
#: The focus is in the dialog, or at the browser's own buttons.
IN_DIALOG = "document.querySelector('dialog').contains(document.activeElement) || document.activeElement === document.body"

Way = Callable[[Page], Awaitable[None]]


def press(*keys: str) -> Way:
    async def go(page: Page) -> None:
        for key in keys:
            await page.keyboard.press(key)

    return go


def click(name: str, *more: str) -> Way:
    """Presses the buttons of these names, one after the other."""

    async def go(page: Page) -> None:
        for one in (name, *more):
            await page.locator("main").get_by_role("button", name=re.compile(f"^{one}")).first.click()

    return go


async def nothing_more(page: Page) -> None:
    return


async def pick(page: Page) -> None:
    """Two workflows, and what may be done to both."""
    for number in range(2):
        await page.locator("tbody input[type=checkbox]").nth(number).check()
    await page.get_by_role("region", name="Selected workflows").get_by_role("button", name="Cancel").click()


async def name_a_view(page: Page) -> None:
    await page.get_by_role("button", name="Save view").click()


async def unsaid(page: Page) -> None:
    """A dialog that is sent without what it asks for."""
    await page.locator("main").get_by_role("button", name=re.compile("^Fork")).first.click()
    await page.get_by_role("dialog").get_by_role("button", name=re.compile("^Fork")).click()
    await expect(page.get_by_role("dialog")).to_contain_text("Say why")


async def preview(page: Page) -> None:
    await page.locator("tbody button.strong").first.click()


async def row_details(page: Page) -> None:
    await page.locator("[role=row][data-step=CompileST]").click()
    await expect(page.locator("#inspector")).to_contain_text("Output")


async def split(page: Page) -> None:
    await page.get_by_text("Split", exact=True).click()


async def drift(page: Page) -> None:
    """A run of this form exists, in another partition."""
    await page.get_by_label(re.compile("^Repository")).fill("acme/payments")
    await page.get_by_label(re.compile("^What is to be done")).fill("SQLAlchemy 2.0")
    await page.get_by_label(re.compile("partition", re.IGNORECASE)).fill("globex")
    await page.get_by_role("button", name=re.compile("^Start")).last.click()
    await expect(page.get_by_role("alert").get_by_role("table")).to_contain_text("globex")


async def unfilled(page: Page) -> None:
    for label in ("Repository", "What is to be done"):
        await page.get_by_label(re.compile(f"^{label}")).fill("")
    await page.get_by_role("button", name=re.compile("^Start")).last.click()
    await expect(page.get_by_role("alert").first).to_be_visible()


def states(stage: Stage) -> Mapping[str, tuple[str, Way]]:
    """By name: where it is, and how one gets to it from there."""
    shown = stage.shown
    run, done, broken = f"/?wid={shown.waiting}", f"/?wid={shown.succeeded}", f"/?wid={shown.failed}"
    recipe = f"/?board=recipe&recipe={STABLE['id']}&v={STABLE['v']}"
    return {
        "start a run": ("/", nothing_more),
        "palette": (done, press("Control+k")),
        "keys": (done, press("?")),
        "ways to a run": (done, click("CLI")),
        "row details": (done, row_details),
        "a question without changes": (f"/?wid={shown.asking}&tab=gate", nothing_more),
        "a recipe's question": (f"/?wid={shown.improvement}&tab=gate", nothing_more),
        "a rejection without a reason": (f"{run}&tab=gate", click("Reject")),
        "an answered gate": (f"{done}&tab=gate", nothing_more),
        "changes side by side": (f"{run}&tab=patches", split),
        "an artifact": (f"{done}&tab=artifacts", preview),
        "cancel": (run, click("Cancel")),
        "fork unsaid": (done, unsaid),
        "try again": (broken, click("Try again")),
        "improve": (broken, click("Improve")),
        "a workflow": (f"/?board=ops&at={shown.waiting}", nothing_more),
        "queues": ("/?board=ops&tab=queues", nothing_more),
        "pause": ("/?board=ops&tab=queues", click("Pause")),
        "audit": ("/?board=ops&tab=audit", nothing_more),
        "bulk": ("/?board=ops", pick),
        "a view's name": ("/?board=ops&q=name:RunIntent%20status:ERROR", name_a_view),
        "nothing matches": ("/?board=ops&q=id:nobody", nothing_more),
        "versions": (f"{recipe}&tab=versions", nothing_more),
        "a version": (f"{recipe}&tab=spec", nothing_more),
        "versions compared": (f"{recipe}&tab=diff", nothing_more),
        "promotion": (f"{recipe}&tab=promotion", nothing_more),
        "flywheel": (f"{recipe}&tab=flywheel", nothing_more),
        "import": (recipe, click("Import")),
        "a form unfilled": (recipe, unfilled),
        "a run with other particulars": (recipe, drift),
        "no such board": ("/?board=nowhere", nothing_more),
        "no such run": ("/?wid=nobody", nothing_more),
    }


@pytest.fixture
async def visitor(visit: Visit) -> Visitor:
    visitor = await visit()
    visitor.tolerate("status of 40[49]")
    return visitor


@pytest.mark.slow
async def test_every_state_of_every_board_is_for_everybody(visitor: Visitor, stage: Stage) -> None:
    """In one window: each state in both themes by axe, and on a phone without scrolling sideways."""
    page = await visitor.open("/")
    wrong: dict[str, list[str]] = {}
    for name, (address, way) in states(stage).items():
        await page.goto(visitor.base + address)
        await settled(page)
        await way(page)
        await settled(page)
        found = await violations_in_both_themes(page)
        await page.set_viewport_size(NARROW)
        found += await page.evaluate(TOO_WIDE)
        await page.set_viewport_size(WIDE)
        if found:
            wrong[name] = found
    assert wrong == {}


@pytest.mark.parametrize("board", ["run", "ops", "recipe"])
async def test_what_is_done_in_a_dialog_needs_no_pointer(visitor: Visitor, stage: Stage, board: str) -> None:
    """The dialog takes the focus, keeps it, closes by Escape, and gives it back."""
    address, button = {
        "run": (f"/?wid={stage.shown.waiting}", "Cancel"),
        "ops": ("/?board=ops&tab=queues", "Pause"),
        "recipe": ("/?board=recipe", "Import"),
    }[board]
    page = await visitor.open(address)
    opener = page.locator("main").get_by_role("button", name=re.compile(f"^{button}")).first
    await opener.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    for _ in range(12):
        assert await page.evaluate(IN_DIALOG)
        await page.keyboard.press("Tab")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(opener).to_be_focused()
