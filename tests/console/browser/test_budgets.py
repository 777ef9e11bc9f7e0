"""What the console costs, as bytes, requests and nodes. Times are printed: a busy machine says little about them."""

import gzip
from collections import Counter
from collections.abc import Iterable, Mapping

import pytest
from playwright.async_api import CDPSession, Page, Response, expect

from bin.showcase import addresses
from tests.console.browser.conftest import Visit
from tests.console.browser.stage import Stage
from tests.console.browser.visitor import Visitor

KB = 1000
#: Of the first page that somebody opens, and of all that there is.
FIRST_GZ = {"script": 60 * KB, "stylesheet": 12 * KB, "document": 15 * KB, "font": 90 * KB}
ALL_GZ = FIRST_GZ | {"script": 100 * KB}
MOST_REQUESTS = 30
MOST_NODES = 1500
MOST_HEAP = 40_000_000
#: Script per frame while scrolling; wanted are 4.
GENEROUS_SCRIPT_MS = 40
CALLS, TASKS = 10_000, 24
WHEELS = 60

CACHED = """
    () => performance.getEntriesByType("resource").filter((one) => one.name.includes("/static/") && one.transferSize > 0)
        .map((one) => one.name)
"""
HAS_ROWS = "(count) => Number(document.querySelector('[role=treegrid]').getAttribute('aria-rowcount')) >= count"
TIMES = """
    () => Object.fromEntries([...performance.getEntriesByType("paint"), ...performance.getEntriesByType("mark")]
        .map((one) => [one.name, Math.round(one.startTime)]))
"""


@pytest.mark.parametrize("name", ["run-timeline", "run-gate", "hitl-inbox", "ops", "throughput", "recipe", "signoff"])
async def test_a_first_visit_is_small_and_a_second_one_fetches_no_file(visit: Visit, stage: Stage, name: str) -> None:
    visitor = await visit()
    responses: list[Response] = []
    visitor.context.on("response", lambda response: responses.append(response))
    page = await visitor.open(addresses(stage.shown)[name])
    cold = len({response.url for response in responses})  # what is read again while the machine is slow counts once
    weight = weigh(stage, responses)
    print(f"{name}, first visit: {cold} requests, gzipped bytes {dict(weight)}, ms {await page.evaluate(TIMES)}")
    assert cold <= MOST_REQUESTS
    assert within(weight, FIRST_GZ)
    again = await visitor.open(addresses(stage.shown)[name])
    assert await again.evaluate(CACHED) == []
    assert all("immutable" in one.headers["cache-control"] for one in responses if "/static/" in one.url)


async def test_all_boards_together_stay_within_the_budget(visit: Visit, stage: Stage) -> None:
    visitor = await visit()
    responses: list[Response] = []
    visitor.context.on("response", lambda response: responses.append(response))
    for path in addresses(stage.shown).values():
        page = await visitor.open(path)
        await page.close()
    files = {response.url: response for response in responses if "/static/" in response.url}
    weight = weigh(stage, files.values())
    print(f"all boards: {len(files)} files, gzipped bytes {dict(weight)}")
    assert within(weight, ALL_GZ)


def weigh(stage: Stage, responses: Iterable[Response]) -> Counter[str]:
    """Bytes by kind, compressed as a proxy would."""
    weight = Counter[str]()
    for response in responses:
        kind = response.request.resource_type
        if kind in FIRST_GZ:
            weight[kind] += len(gzip.compress(stage.http.get(response.url).content, 9))
    return weight


def within(weight: Counter[str], most: Mapping[str, int]) -> bool:
    return all(weight[kind] <= bytes for kind, bytes in most.items())


async def test_a_run_of_ten_thousand_steps_costs_no_more_than_a_small_one(visit: Visit, stage: Stage) -> None:
    small, large = stage.long_run("small", 30, 4), stage.long_run("large", CALLS, TASKS)
    visitor = await visit()
    found: dict[str, dict[str, float]] = {}
    for name, wid in (("small", small), ("large", large)):
        page = await visitor.open(f"/?wid={wid}&board=run&tab=timeline")
        grid = page.locator("[role=treegrid]")
        await expect(grid).to_be_visible()
        if name == "large":
            await page.wait_for_function(HAS_ROWS, arg=CALLS)
        found[name] = await scrolled(visitor, page)
        found[name] |= {name: ms for name, ms in (await page.evaluate(TIMES)).items() if name != "first-paint"}
        await page.close()
    print("\n".join(f"{name} run: {figures}" for name, figures in found.items()))
    assert found["large"]["nodes"] <= MOST_NODES
    assert found["large"]["heap"] <= MOST_HEAP
    assert found["large"]["script ms/frame"] <= GENEROUS_SCRIPT_MS


async def scrolled(visitor: Visitor, page: Page) -> dict[str, float]:
    """What the page is made of, and what scrolling through it takes."""
    debugger = await visitor.context.new_cdp_session(page)
    await debugger.send("Performance.enable")
    await page.locator("[role=row][data-step]").nth(3).hover()
    before = await metrics(debugger)
    frames = await page.evaluate(
        "() => { globalThis.frames_ = 0; const f = () => { frames_++; requestAnimationFrame(f); }; f(); }"
    )
    for _ in range(WHEELS):
        await page.mouse.wheel(0, 700)
    frames = max(1, await page.evaluate("frames_"))
    after = await metrics(debugger)
    rows = await page.locator("[role=row][data-step]").count()
    nodes = await page.evaluate("document.querySelectorAll('*').length")
    script = (after["ScriptDuration"] - before["ScriptDuration"]) * 1000 / frames
    return {"rows": rows, "nodes": nodes, "heap": after["JSHeapUsedSize"], "frames": frames, "script ms/frame": round(script, 2)}


async def metrics(debugger: CDPSession) -> dict[str, float]:
    answer = await debugger.send("Performance.getMetrics")
    return {one["name"]: one["value"] for one in answer["metrics"]}


async def test_rows_far_down_are_drawn_where_one_scrolls_to(visit: Visit, stage: Stage) -> None:
    wid = stage.long_run("far", 3_000)
    visitor = await visit()
    page = await visitor.open(f"/?wid={wid}&board=run&tab=timeline")
    await page.wait_for_function(HAS_ROWS, arg=3000)
    await page.locator("[role=row][data-step]").nth(2).click()
    await page.keyboard.press("End")
    await expect(page.locator("[role=row][data-step='page 3000']")).to_be_visible()
    await page.keyboard.press("/")
    await page.keyboard.type("page 1234")
    await expect(page.locator("[role=row][data-step='page 1234']")).to_be_visible()
    await expect(page.locator("[role=row][data-step]")).to_have_count(1)
