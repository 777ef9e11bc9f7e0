"""The console in a real Chromium: Debian's, driven by playwright. Where there is none these tests are skipped, and say so.

The page's own policy holds (nothing is bypassed). Whatever a page complains about fails the test that opened it: an error or a warning
in its console, an uncaught error, a report of the content security policy or of Trusted Types, a failed request.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Literal

import pytest
from playwright.async_api import Browser, async_playwright, expect

from bin.browser import ARGUMENTS, MISSING, find_chromium
from tests.conftest import new_database
from tests.console.browser.stage import PATIENCE_S, Stage, staged
from tests.console.browser.visitor import Visitor

#: Makes a visitor with a window of this theme and size.
Visit = Callable[..., Awaitable[Visitor]]
Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    path = find_chromium()
    if path is None:
        pytest.skip(MISSING)
    return path


@pytest.fixture(scope="session")
def stage(chromium_path: str, server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A service with something to show, for all of these tests; each makes its own runs for what it changes."""
    with new_database(server, template) as dsn, staged(dsn, tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture(scope="module")
async def chromium(chromium_path: str) -> AsyncIterator[Browser]:
    expect.set_options(timeout=PATIENCE_S * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path, args=list(ARGUMENTS))
        yield browser
        await browser.close()


@pytest.fixture
async def visit(chromium: Browser, stage: Stage) -> AsyncIterator[Visit]:
    visitors: list[Visitor] = []

    async def visit(*, theme: Theme = "light", width: int = 1440, height: int = 900, base: str = stage.base) -> Visitor:
        context = await chromium.new_context(
            color_scheme=theme, viewport={"width": width, "height": height}, reduced_motion="reduce", locale="en-GB"
        )
        context.set_default_timeout(PATIENCE_S * 1000)
        visitor = Visitor(context, base)
        visitors.append(visitor)
        await visitor.start()
        return visitor

    yield visit
    for visitor in visitors:
        await visitor.close()
    assert [trouble for visitor in visitors for trouble in visitor.unexpected] == []
