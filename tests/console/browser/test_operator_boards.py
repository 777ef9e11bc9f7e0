"""What a person does on the boards besides looking at one run: answer, act on many, pause, compare, promote, sign off."""

import json
import re
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

import steps
from bin.showcase import STABLE
from tests.console.browser.conftest import Visit
from tests.console.browser.stage import Stage
from tests.console.browser.visitor import Visitor, settled

#: A recipe that every database starts with, and whose fixtures are green.
SEED = Path(steps.__file__).parent / "recipes" / "compile-default.v1.json"


async def act(page: Page, verb: str, reason: str = "drill") -> None:
    """Fills in the dialog that asks who and why, and confirms."""
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Reason").fill(reason)
    await dialog.get_by_label("Your name").fill("ada")
    await dialog.get_by_role("button", name=re.compile(f"^{verb}")).last.click()


def trail(stage: Stage) -> list[dict[str, Any]]:
    return stage.maker.get("/api/ops/audit?limit=50")


async def test_the_inbox_shows_the_changes_beside_the_decision_and_goes_on_to_the_next(visit: Visit, stage: Stage) -> None:
    first, second = [stage.maker.start(STABLE, subject) for subject in ("inbox one", "inbox two")]
    gates = [stage.maker.gate(wid) for wid in (first, second)]
    page = await (await visit()).open("/?board=hitl-inbox")
    await page.locator(f".inbox-item[data-gate='{gates[0]}']").click()
    decision = page.get_by_role("region", name="Decision")
    await expect(decision).to_contain_text("inbox one")
    await expect(decision.locator("section.diff").first).to_be_visible()
    await page.keyboard.press("a")
    await page.keyboard.press("Enter")
    await expect(page.locator(f".inbox-item[data-gate='{gates[0]}']")).to_have_count(0)
    await expect(page.locator(".inbox-item[aria-current]")).to_have_count(1)
    await expect(decision).not_to_contain_text("inbox one")
    stage.maker.end(first)
    assert stage.maker.get(f"/api/runs/{first}")["status"] == "SUCCESS"


async def test_keys_move_in_the_inbox_and_a_link_leads_to_the_gate(visit: Visit, stage: Stage) -> None:
    page = await (await visit()).open("/?board=hitl-inbox")
    items = page.locator(".inbox-item")
    await expect(items.nth(1)).to_be_visible()
    await expect(items.nth(0)).to_have_attribute("aria-current", "true")
    await page.keyboard.press("j")
    await expect(items.nth(1)).to_have_attribute("aria-current", "true")
    gate = await items.nth(1).get_attribute("data-gate")
    await page.get_by_role("link", name="Open run").click()
    await settled(page)
    assert f"gate={gate}" in page.url
    assert "tab=gate" in page.url


async def test_a_filter_is_an_address_and_a_view_of_it_is_kept(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    page = await visitor.open("/?board=ops")
    await page.keyboard.press("/")
    await page.keyboard.type("name:RunIntent status:error")
    await page.keyboard.press("Enter")
    await expect(page.locator("tbody tr").first).to_contain_text("Failed")
    rows = stage.maker.get("/api/ops/wf?name=RunIntent&status=ERROR&limit=50")
    await expect(page.locator("tbody tr")).to_have_count(len(rows))
    await page.get_by_role("button", name="Save view").click()
    await page.get_by_role("dialog").get_by_label("Name").fill("Broken runs")
    await page.get_by_role("button", name="Save", exact=True).click()
    again = await visitor.open("/?board=ops")
    await again.get_by_role("link", name="Broken runs").click()
    await expect(again.locator("tbody tr")).to_have_count(len(rows))
    await again.get_by_label("Filter workflows").fill("status:BROKEN")
    await again.keyboard.press("Enter")
    await expect(again.get_by_role("alert")).to_contain_text("no workflow has the status BROKEN")


async def test_a_workflow_says_what_may_be_done_and_an_action_needs_who_and_why(visit: Visit, stage: Stage) -> None:
    wid = stage.maker.start(STABLE, "to be cancelled")
    stage.maker.gate(wid)
    page = await (await visit()).open(f"/?board=ops&at={wid}")
    side = page.locator(f"[data-workflow='{wid}']")
    await expect(side.get_by_role("button", name="Resume")).to_have_attribute("aria-disabled", "true")
    await expect(side).to_contain_text("cannot resume workflow in status PENDING")
    await side.get_by_role("button", name="Cancel").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").last.click()
    await expect(page.get_by_role("dialog")).to_contain_text("Say why")
    await act(page, "Cancel")
    await expect(side).to_contain_text("Cancelled")
    await expect(side.locator(".audit-line")).to_contain_text("ada")
    assert stage.maker.get(f"/api/ops/wf/{wid}")["audit"][0]["reason"] == "drill"


async def test_one_action_on_many_counts_them_first_and_keeps_each(visit: Visit, stage: Stage) -> None:
    wids = [stage.maker.start(STABLE, f"one of many {number}") for number in range(2)]
    for wid in wids:
        stage.maker.gate(wid)
    page = await (await visit()).open("/?board=ops&q=name:RunIntent")
    for wid in (*wids, stage.shown.succeeded):
        await page.get_by_role("checkbox", name=f"Select {wid}").check()
    await page.get_by_role("region", name="Selected workflows").get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("heading")).to_have_text("Cancel 2 workflows")
    await expect(dialog).to_contain_text("1 left out")
    await act(page, "Cancel", "clearing up")
    await expect(dialog).to_contain_text("2 of 2 asked, 2 accepted")
    kept = [row for row in trail(stage) if row["reason"] == "clearing up"]
    assert {row["targetWorkflowID"] for row in kept} == set(wids)


async def test_a_queue_is_paused_and_resumed_with_a_reason(visit: Visit, stage: Stage) -> None:
    page = await (await visit()).open("/?board=ops&tab=queues")
    card = page.locator("[data-queue=compileQ]")
    await card.get_by_role("button", name="Pause").click()
    await act(page, "Pause", "maintenance")
    await expect(card).to_contain_text("Paused")
    await card.get_by_role("button", name="Resume").click()
    await act(page, "Resume", "over")
    await expect(card).not_to_contain_text("Paused")
    await page.get_by_role("tab", name="Audit").click()
    await expect(page.locator(".audit-line").first).to_contain_text("ada resumed queue compileQ")
    await expect(page.locator(".audit-line").nth(1)).to_contain_text("maintenance")


async def test_a_figure_shows_the_statement_that_it_comes_from(visit: Visit, stage: Stage) -> None:
    page = await (await visit()).open("/?board=throughput")
    for name, query in stage.maker.get("/api/ops/flow")["queries"].items():
        if name == "queues":
            continue  # the figures at the top have no card
        card = page.locator(f"[data-card={name}]")
        await card.locator("details.source > summary").click()
        assert (await card.locator("pre").inner_text()).strip() == query
        await expect(card).to_contain_text("read")


def bundle(id: str, *versions: dict[str, Any]) -> str:
    return json.dumps({"id": id, "versions": list(versions)})


async def test_a_recipe_comes_in_is_compared_and_becomes_stable(visit: Visit, stage: Stage) -> None:
    (spec,) = json.loads(SEED.read_text())["versions"]
    one = spec | {"id": "newcomer", "v": "1.0.0", "name": "Newcomer"}
    two = one | {"v": "1.1.0", "limits": spec["limits"] | {"maxSteps": 7}}
    visitor = await visit()
    page = await visitor.open("/?board=recipe")
    await page.get_by_role("button", name="Import").click()
    await page.get_by_label("Or the bundle itself").fill(bundle("newcomer", one, two))
    await page.get_by_role("button", name="Import as drafts").click()
    await expect(page.get_by_role("heading", name="Newcomer")).to_be_visible()
    await page.get_by_role("tab", name="Diff").click()
    await expect(page.locator("section.diff")).to_have_count(1)
    await expect(page.locator("section.diff .ins .text")).to_have_text('  "maxSteps": 7,')
    await page.get_by_role("tab", name="Promotion").click()
    await page.get_by_role("button", name="Make candidate").click()
    await act(page, "Make candidate")
    await page.get_by_role("button", name="Promote").click()
    await act(page, "Promote")
    await expect(page.get_by_text("Active: starts by name take it")).to_be_visible()
    assert stage.maker.get("/api/recipes/newcomer/versions/1.1.0")["status"] == "stable"


async def test_a_refused_import_says_every_place(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    visitor.tolerate("status of 400")
    page = await visitor.open("/?board=recipe")
    await page.get_by_role("button", name="Import").click()
    text = page.get_by_label("Or the bundle itself")
    await text.fill("{")
    await expect(page.get_by_role("dialog")).to_contain_text("This is not JSON")
    await text.fill(bundle("x", {"id": "x", "v": "1"}))
    await page.get_by_role("button", name="Import as drafts").click()
    await expect(page.get_by_role("alert")).to_contain_text("/versions/0 must have required property 'formSchema'")


async def test_an_export_is_a_file_that_can_be_imported_again(visit: Visit, stage: Stage) -> None:
    page = await (await visit()).open(f"/?board=recipe&recipe={STABLE['id']}")
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Export").click()
    download = await downloading.value
    assert download.suggested_filename == f"{STABLE['id']}.json"
    exported = json.loads(Path(await download.path()).read_text())
    assert [one["v"] for one in exported["versions"]] == sorted(
        row["v"] for row in stage.maker.get(f"/api/recipes/{STABLE['id']}/versions")
    )


async def test_the_sign_off_shows_what_stands_against_it_first_and_why(visit: Visit, stage: Stage) -> None:
    board = stage.maker.get("/api/ops/signoff")
    page = await (await visit()).open("/?board=signoff")
    await expect(page.locator(".verdict")).to_have_attribute("data-verdict", board["verdict"])
    tiles = [*board["pfTiles"], *board["proofTiles"], *board["rollbackTriggers"]]
    await expect(page.locator("[data-tile]")).to_have_count(len(tiles))
    for strip in await page.locator("ul.tiles").all():
        verdicts = await strip.locator("[data-tile]").evaluate_all("(all) => all.map((one) => one.dataset.verdict)")
        assert verdicts == sorted(verdicts, key=["NO_GO", "GO"].index)
    failing = [tile for tile in tiles if tile["verdict"] == "NO_GO"]
    assert failing
    await expect(page.locator(".verdict")).to_contain_text(f"{len(failing)} tiles stand against it")


async def test_a_viewer_is_told_why_nothing_may_be_done(visit: Visit, stage: Stage) -> None:
    visitor: Visitor = await visit()

    async def as_viewer(route: Any) -> None:
        answer = await route.fetch()
        body = (await answer.text()).replace('"rights":["read","answer","operate","administer"]', '"rights":["read"]')
        await route.fulfill(response=answer, body=body)

    await visitor.context.route(re.compile(r"/\?board="), as_viewer)
    page = await visitor.open("/?board=ops&tab=queues")
    rights = await page.evaluate("JSON.parse(document.getElementById('boot').textContent).session.rights")
    assert rights == ["read"]
    pause = page.locator("[data-queue=compileQ]").get_by_role("button", name="Pause")
    await expect(pause).to_have_attribute("aria-disabled", "true")
    await expect(pause).to_have_attribute("title", re.compile("right to operate"))
