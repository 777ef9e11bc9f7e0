"""A person with a browser window, who tells of everything that the page complains about."""

import re

from playwright.async_api import BrowserContext, ConsoleMessage, Error, Locator, Page, Request, Response, expect

#: Reports of the content security policy, Trusted Types included, as the page sees them.
WATCH_POLICY = """
    addEventListener("securitypolicyviolation", (event) =>
        globalThis.reportTrouble(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
#: Three looks in a row found the board in this state.
CALM = """
    (state) => {
        const isSo = document.querySelector(`main[data-state=${state}]`) && (state !== "ready" || !document.querySelector("main .loading"));
        globalThis.calmFor = isSo ? (globalThis.calmFor ?? 0) + 1 : 0;
        if (calmFor < 3) return false;
        calmFor = 0;
        return true;
    }
"""
GOOD_CONSOLE = ("verbose", "debug", "log", "info", "startGroup", "endGroup")
#: An event stream that its page closes, and what a page leaves behind when it goes elsewhere.
CLOSED = "net::ERR_ABORTED"


class Visitor:
    """One browser context: its own storage, theme and size. `troubles` is what its pages complained about so far."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.context = context
        self.base = base
        self.troubles: list[str] = []
        self._tolerated: list[re.Pattern[str]] = []

    async def start(self) -> None:
        await self.context.expose_function("reportTrouble", lambda text: self.troubles.append(str(text)))
        await self.context.add_init_script(WATCH_POLICY)

    def tolerate(self, pattern: str) -> None:
        """From now on this is no trouble: the test wants it to happen."""
        self._tolerated.append(re.compile(pattern))

    async def open(self, path: str = "/", *, state: str | None = "ready") -> Page:
        """A new window at this address, once its board is in that state."""
        page = await self.context.new_page()
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)
        page.on("requestfailed", self._on_failure)
        page.on("response", self._on_response)
        await page.goto(self.base + path)
        if state is not None:
            await settled(page, state)
        return page

    async def close(self) -> None:
        await self.context.close()

    @property
    def unexpected(self) -> list[str]:
        return [text for text in self.troubles if not any(pattern.search(text) for pattern in self._tolerated)]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type not in GOOD_CONSOLE:
            self.troubles.append(f"console {message.type}: {message.text} at {message.location.get('url', '')}")

    def _on_error(self, error: Error) -> None:
        self.troubles.append(f"page: {error.message}")

    def _on_failure(self, request: Request) -> None:
        if request.failure != CLOSED:
            self.troubles.append(f"request: {request.failure} {request.url}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 500:
            self.troubles.append(f"response: {response.status} {response.url}")


async def settled(page: Page, state: str = "ready") -> None:
    """Waits until the board has what it shows, and has had it for a moment."""
    await page.wait_for_function(CALM, arg=state, polling=40)


async def connected(page: Page, *words: str) -> None:
    """Waits until the page says so of its connection: live, reconnecting, polling, paused, final."""
    await expect(page.locator(".conn")).to_have_attribute("data-state", re.compile("|".join(words)))


def gate_card(page: Page, gate: str) -> Locator:
    """The question, or what was answered to it: `data-state` is the gate's, CLOSED where the run has ended without it."""
    return page.locator(f"[id='gate-{gate}']")
