"""Whatever the service answers is shown as it is: nothing yet, not yet, an error, a refusal with all that it says."""

import asyncio
import re
from collections.abc import Iterator

import pytest
from playwright.async_api import Page, Route, expect

from bin.showcase import STABLE
from tests.conftest import new_database
from tests.console.browser.conftest import Visit
from tests.console.browser.stage import Stage, running, settings_of
from tests.console.browser.visitor import settled

BOARDS = ["run", "hitl-inbox", "ops", "throughput", "recipe"]
DATA = re.compile(r"/api/(?!runs/.+/stream)")


@pytest.fixture(scope="module")
def nothing_yet(chromium_path: str, server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service in which nothing has happened."""
    folder = tmp_path_factory.mktemp("empty")
    with new_database(server, template) as dsn, running("api", settings_of(dsn, folder), folder) as api:
        yield api.url()


@pytest.mark.parametrize("board", BOARDS)
async def test_an_empty_board_says_how_to_fill_it(visit: Visit, nothing_yet: str, board: str) -> None:
    visitor = await visit(base=nothing_yet)
    page = await visitor.open(f"/?board={board}")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert re.search(r"\b(no|none|nobody|nothing|yet)\b", await page.locator("main").inner_text(), re.IGNORECASE)


@pytest.mark.parametrize("board", ["hitl-inbox", "ops", "throughput", "recipe", "signoff"])
async def test_what_is_slow_is_waited_for_and_what_fails_is_told_with_a_way_to_try_again(visit: Visit, board: str) -> None:
    visitor = await visit()
    visitor.tolerate("status of 500|response: 500")
    arrived, broken = asyncio.Event(), True

    async def answer(route: Route) -> None:
        await arrived.wait()
        if broken:
            await route.fulfill(status=500, json={"error": "unexpected; details are in the log"})
        else:
            await route.continue_()

    await visitor.context.route(DATA, answer)
    page = await visitor.open(f"/?board={board}", state="loading")
    await expect(page.locator("main [aria-busy=true], main[aria-busy=true]").first).to_be_attached()
    arrived.set()
    await expect(page.get_by_role("alert").first).to_contain_text("500")
    await expect(page.get_by_role("alert").first).to_contain_text("unexpected; details are in the log")
    broken = False
    await page.get_by_role("button", name=re.compile("again|retry", re.IGNORECASE)).first.click()
    await settled(page)


async def start_form(page: Page) -> None:
    await page.get_by_label(re.compile("^Repository")).fill("acme/payments")
    await page.get_by_label(re.compile("^What is to be done")).fill("SQLAlchemy 2.0")


async def test_the_form_of_a_recipe_starts_a_run_and_the_same_again_is_a_replay(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    page = await visitor.open(f"/?board=recipe&recipe={STABLE['id']}&v={STABLE['v']}")
    await start_form(page)
    await page.get_by_label(re.compile("partition", re.IGNORECASE)).fill("acme")
    await page.get_by_role("button", name=re.compile("^Start")).last.click()
    await settled(page)
    assert f"wid={stage.shown.succeeded}" in page.url
    await expect(page.get_by_text(re.compile("replay|already", re.IGNORECASE)).first).to_be_visible()
