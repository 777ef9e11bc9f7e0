"""Where people are asked who they are: a token opens the console, and it offers what the token allows."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.async_api import expect

from bin.settings import ROOT
from bin.showcase import STABLE, Maker
from tests.conftest import new_database
from tests.console.browser.conftest import Visit
from tests.console.browser.stage import running, settings_of
from tests.console.browser.visitor import gate_card, settled


@dataclass(frozen=True, slots=True)
class Guarded:
    """A service that wants tokens, with a run at its gate."""

    base: str
    wid: str
    gate: str
    viewer: str
    approver: str


@pytest.fixture(scope="module")
def guarded(chromium_path: str, server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    with new_database(server, template) as dsn:
        settings = settings_of(dsn, folder)
        tokens = {role: token(settings, role) for role in ("admin", "viewer", "approver")}
        with running("worker", settings, folder), running("api", settings, folder) as api:
            headers = {"authorization": f"Bearer {tokens['admin']}"}
            with httpx.Client(base_url=api.url(), timeout=60, headers=headers) as http:
                maker = Maker(http)
                maker.publish([STABLE])
                wid = maker.start(STABLE, "only for approvers")
                yield Guarded(api.url(), wid, maker.gate(wid), tokens["viewer"], tokens["approver"])


def token(settings: dict[str, str], role: str) -> str:
    command = [sys.executable, "-P", "-m", "bin.commands.token", "create", f"the-{role}", "--role", role]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    made = subprocess.run(command, env=environment, cwd=Path.home(), capture_output=True, text=True, check=True)
    return made.stdout.split()[-1]


async def test_a_wrong_token_is_refused_and_a_right_one_opens_the_page_that_was_wanted(visit: Visit, guarded: Guarded) -> None:
    visitor = await visit(base=guarded.base)
    visitor.tolerate("status of 401")
    page = await visitor.open(f"/?wid={guarded.wid}&board=run&tab=gate")
    await page.get_by_label("Token").fill("hf_0_nothing")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("401")
    await page.get_by_label("Token").fill(guarded.approver)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("tab", selected=True)).to_contain_text("Gate")
    await expect(page.get_by_text("the-approver").first).to_be_visible()
    assert "hf_" not in str(await page.evaluate("[document.cookie, JSON.stringify(localStorage)]")), "scripts see no token"


async def test_who_may_only_read_sees_why_nothing_can_be_decided(visit: Visit, guarded: Guarded) -> None:
    visitor = await visit(base=guarded.base)
    visitor.tolerate("status of 401")
    page = await visitor.open(f"/?wid={guarded.wid}&board=run&tab=gate")
    await page.get_by_label("Token").fill(guarded.viewer)
    await page.get_by_role("button", name="Sign in").click()
    await settled(page)
    card = gate_card(page, guarded.gate)
    approve = card.get_by_role("button", name="Approve")
    await expect(approve).to_be_disabled()
    assert await approve.get_attribute("title") or await card.get_by_text("answer").count()
    await approve.dispatch_event("click")
    await expect(card).to_have_attribute("data-state", "PENDING")


async def test_who_may_answer_answers_by_name(visit: Visit, guarded: Guarded) -> None:
    visitor = await visit(base=guarded.base)
    visitor.tolerate("status of 401")
    page = await visitor.open(f"/?wid={guarded.wid}&board=run&tab=gate")
    await page.get_by_label("Token").fill(guarded.approver)
    await page.get_by_role("button", name="Sign in").click()
    await settled(page)
    card = gate_card(page, guarded.gate)
    await card.get_by_role("button", name="Approve").click()
    await expect(card).to_have_attribute("data-state", "RESOLVED")
    await expect(card).to_contain_text("the-approver")
