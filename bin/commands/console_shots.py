"""bin/console-shots: the pictures of the console in docs/console, taken of a service with real data.

    bin/console-shots [--out FOLDER] [--only NAME ...] [--keep]

Brings up a service of its own whose work takes its time (half a minute), and takes each board and each tab of a run in both themes, with
Debian's Chromium. With --keep the service stays until Ctrl-C, to be looked at.
"""

import argparse
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from bin.browser import ARGUMENTS, MISSING, find_chromium
from bin.own_server import own_server
from bin.pictures import shrunk
from bin.rehearsal import rehearsing
from bin.settings import ROOT, Settings
from bin.showcase import addresses, fill
from bin.wiring import FAILED, complain, run

SIZE = (1280, 800)
PHONE = (390, 780)
PATIENCE_MS = 20_000
STILL_MS = 300
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def main(settings: Settings) -> int:
    parser = argparse.ArgumentParser(prog="bin/console-shots", description="Takes the pictures of the console.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/console", metavar="FOLDER", help="where they go (docs/console)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these, such as run-gate (all)")
    parser.add_argument("--keep", action="store_true", help="let the service stay until Ctrl-C")
    asked = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        complain(MISSING)
        return FAILED
    state = settings.state_dir.absolute() / "console-shots" / secrets.token_hex(4)
    try:
        with own_server(state / "server", settings.pg_bindir) as server, rehearsing(server.dsn, state) as base:
            print(f"a service is at {base}; making its runs", flush=True)
            with httpx.Client(base_url=base, timeout=60) as http:
                shown = fill(http, thinks_s=4.0)
            views = {name: path for name, path in addresses(shown).items() if not asked.only or name in asked.only}
            take(chromium, base, views, asked.out)
            while asked.keep:
                time.sleep(1)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    return 0


def take(chromium: str, base: str, views: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        helper = browser.new_page()
        for theme in THEMES:
            for name, path in views.items():
                picture(browser, helper, base + path, folder / f"{name}-{theme}.png", theme, SIZE)
        for name in ("run-gate", "hitl-inbox"):
            if name in views:
                picture(browser, helper, base + views[name], folder / f"{name}-phone.png", "light", PHONE)
        browser.close()


def picture(browser: Browser, helper: Page, url: str, file: Path, theme: Literal["light", "dark"], size: tuple[int, int]) -> None:
    """What there is to see once nothing moves any more."""
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=theme,
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
    )
    page.goto(url)
    at_rest(page)
    file.write_bytes(shrunk(helper, page.screenshot()))
    print(f"{file.name}  {file.stat().st_size / 1024:.0f} KB", flush=True)
    page.close()


def at_rest(page: Page) -> None:
    page.locator("main[data-state=ready]").wait_for(timeout=PATIENCE_MS)
    page.wait_for_timeout(STILL_MS)


if __name__ == "__main__":
    run(main)
