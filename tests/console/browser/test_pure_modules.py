"""The modules that only compute, imported as they are into the browser and held against rows of all kinds."""

import random
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.console.browser.conftest import Visit

RUNS = 200
PROPERTIES = Path(__file__).with_name("layout_properties.js").read_text()


@pytest.fixture
async def page(visit: Visit) -> Page:
    visitor = await visit()
    return await visitor.open("/?board=ops")


async def module(page: Page, path: str) -> str:
    """The address of one of the console's modules, as this page knows it."""
    return await page.evaluate("(path) => new URL(path, document.querySelector('script[type=module]').src).href", path)


def rows(chance: random.Random) -> list[dict[str, Any]]:
    """A run as it could have been: calls, tasks side by side, gates that waited for long, rows without an end, clocks that disagree."""
    at, found = 1_763_000_000_000, list[dict[str, Any]]()
    for number in range(chance.choice([1, 2, 5, 20])):
        kind = chance.choice(["step", "call", "child", "child", "gate"])
        at += chance.choice([-5, 0, 1, 40, 3_000, 100_000]) if found else 0
        took = chance.choice([0, 1, 30, 800, 12_000, 90_000_000 if kind == "gate" else 60_000])
        status = chance.choice(["SUCCESS", "SUCCESS", "ERROR", "RUNNING", "WAITING"])
        row = {
            "stepID": f"s{number}",
            "name": kind,
            "kind": kind,
            "status": status,
            "attempt": 1,
            "startedAt": at,
            "artifactRefs": [],
        }
        if status in ("SUCCESS", "ERROR"):
            row["endedAt"] = at + took
            at += chance.choice([0, took])
        if kind == "child":
            row["queuedAt"] = at - chance.choice([0, 500])
            row["attempts"] = [
                {
                    "attempt": n + 1,
                    "errCode": "BOOT_FAIL",
                    "startedAt": at + chance.choice([-400, 0, 700 * n]),
                    "endedAt": at + chance.choice([0, n, 900 * n]),
                }
                for n in range(chance.choice([0, 1, 2, 4]))
            ]
        found.append(row)
    return sorted(found, key=lambda row: row["startedAt"])


async def test_a_timeline_is_laid_out_as_time_goes_and_hides_no_work(page: Page) -> None:
    chance = random.Random(7)
    runs = [{"rows": rows(chance), "now": 1_763_000_000_000 + 200_000_000} for _ in range(RUNS)]
    assert await page.evaluate(PROPERTIES, [await module(page, "timeline/layout.js"), runs]) == []


async def test_an_address_says_what_it_was_made_of(page: Page) -> None:
    given = [
        {"board": "run"},
        {"board": "run", "wid": "ih_1", "tab": "gate", "gate": "approve-plan-1"},
        {"board": "ops", "q": "status:ERROR after:2h & more"},
        {"board": "recipe", "recipe": "a/b c", "v": "1.0.0"},
    ]
    script = """
        async ([at, given]) => {
            const { href, read } = await import(at);
            return given.map((one) => read(new URL(href(one), location).search));
        }
    """
    assert await page.evaluate(script, [await module(page, "state.js"), given]) == given


async def test_times_and_sizes_are_short_and_never_negative(page: Page) -> None:
    script = """
        async (at) => {
            const { duration, relative, bytes, short, plural } = await import(at);
            return [[-5, 0, 840, 2700, 9960, 65_000, 3_600_000, 90_000_000].map(duration), duration(null), relative(1000, 61_000),
                relative(61_000, 1000), relative(1000, 2000), [999, 1000, 12_345, 999_600].map(bytes), short("ih_4f2a0123456789abcdef91c3"),
                plural(1, "step"), plural(12_480, "patch", "patches")];
        }
    """
    assert await page.evaluate(script, await module(page, "state.js")) == [
        ["0 ms", "0 ms", "840 ms", "2.7 s", "10 s", "1m 05s", "1h 00m", "1d 1h"],
        "–",
        "1m ago",
        "in 1m",
        "just now",
        ["999 B", "1.0 KB", "12 KB", "1.0 MB"],
        "ih_4f2a0…91c3",
        "1 step",
        "12,480 patches",
    ]


LONG_NUMBER = "12345678901234567890"
AS_TEXT = f'{{"id": {LONG_NUMBER}, "ids": [-{LONG_NUMBER}, 7], "text": "id \\"{LONG_NUMBER}\\"", "part": 0.{LONG_NUMBER}}}'


@pytest.mark.parametrize("is_older", [False, True], ids=["browser", "older browser"])
async def test_numbers_that_javascript_would_round_keep_their_digits(page: Page, is_older: bool) -> None:
    script = """
        async ([at, text, isOlder]) => {
            if (isOlder) { delete JSON.rawJSON; delete JSON.isRawJSON; }
            const { parseJson, digitsOf } = await import(at);
            const value = parseJson(text);
            return [JSON.stringify(value.ids), digitsOf(value.id) ?? value.id, digitsOf(7) ?? null, value.text, typeof value.part];
        }
    """
    ids, id, small, text, part = await page.evaluate(script, [await module(page, "state.js"), AS_TEXT, is_older])
    assert ids == (f'["-{LONG_NUMBER}",7]' if is_older else f"[-{LONG_NUMBER},7]")
    assert (id, small, text, part) == (LONG_NUMBER, None, f'id "{LONG_NUMBER}"', "number")
