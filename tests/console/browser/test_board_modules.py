"""What the boards compute, imported as it is into the browser: filters, diffs, groups, sums, and what is said of evidence."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.console.browser.conftest import Visit
from tests.console.browser.test_pure_modules import module

NOON = 1_763_726_400_000
HOUR = 3_600_000


@pytest.fixture
async def page(visit: Visit) -> Page:
    return await (await visit()).open("/?board=signoff")


async def call(page: Page, path: str, function: str, *given: Any) -> Any:
    """What a function of a module makes of these values."""
    script = "async ([at, name, given]) => (await import(at))[name](...given)"
    return await page.evaluate(script, [await module(page, path), function, list(given)])


FILTERS: list[tuple[str, dict[str, str], list[str]]] = [
    ("", {}, []),
    ("status:error queue:intentQ", {"status": "ERROR", "queueName": "intentQ"}, []),
    ("ih_4f2a name:RunIntent", {"id": "ih_4f2a", "name": "RunIntent"}, []),
    ('name:"two words"', {"name": "two words"}, []),
    ("promote:routes@v1:1", {"id": "promote:routes@v1:1"}, []),
    ("after:2h before:30m", {"after": str(NOON - 2 * HOUR), "before": str(NOON - HOUR // 2)}, []),
    ("after:2025-11-21", {"after": "1763683200000"}, []),
    ("status:BROKEN after:soon", {}, ["no workflow has the status BROKEN", "after:soon is no time; write 2h, 3d or 2026-11-21"]),
]


async def test_a_filter_becomes_a_query(page: Page) -> None:
    for text, query, problems in FILTERS:
        assert await call(page, "boards/ops.js", "queryOf", text, NOON) == {"query": query, "problems": problems}, text


async def test_a_filter_survives_being_taken_apart(page: Page) -> None:
    for text in ("status:ERROR ih_1", 'name:"a b" after:2h', "promote:x@v1:1"):
        assert await call(page, "boards/ops.js", "withToken", text, "queue", None) == text
    assert await call(page, "boards/ops.js", "withToken", "status:ERROR x", "status", "SUCCESS") == "x status:SUCCESS"


async def test_a_diff_is_one_that_patch_applies(page: Page, tmp_path: Path) -> None:
    chance = random.Random(5)
    for number in range(60):
        before = [chance.choice("abcd{}") for _ in range(chance.choice([0, 1, 3, 12, 40]))]
        after = [line for line in before if chance.random() > 0.2]
        for _ in range(chance.choice([0, 1, 4])):
            after.insert(chance.randint(0, len(after)), chance.choice("efgh"))
        old, new = ["\n".join(lines) for lines in (before, after)]
        diff = await call(page, "recipe/content.js", "unifiedDiff", old, new)
        assert (diff == "") == (old == new)
        if diff:
            file = tmp_path / f"{number}.txt"
            file.write_text(old + "\n")
            head = f"--- {file.name}\n+++ {file.name}\n"
            subprocess.run(["patch", "--posix", "-s", file.name], input=(head + diff).encode(), cwd=tmp_path, check=True)  # noqa: ASYNC221
            assert file.read_text() == new + "\n", (old, new, diff)


async def test_only_what_differs_between_two_versions_is_shown(page: Page) -> None:
    one = {"v": "1", "limits": {"a": 1, "b": 2}, "name": "x", "prompts": {"compile": "p"}}
    two = {"v": "2", "limits": {"b": 2, "a": 1}, "name": "y", "prompts": {"compile": "p"}}
    parts = await call(page, "recipe/content.js", "partsChanged", one, two)
    assert [part["part"] for part in parts] == ["name"]


async def test_the_inbox_is_grouped_by_how_soon_an_answer_is_needed(page: Page) -> None:
    def row(name: str, deadline: int | None, created: int = 0) -> dict[str, Any]:
        return {"workflowID": name, "gateKey": "g", "deadline": deadline, "createdAt": created}

    rows = [
        row("never", None),
        row("later", NOON + 30 * HOUR),
        row("today", NOON + HOUR),
        row("soon-young", NOON + 60_000, 2),
        row("soon-old", NOON + 60_000, 1),
        row("overdue", NOON - 1),
        row("now", NOON),
    ]
    groups = await call(page, "boards/inbox.js", "grouped", rows, NOON, NOON + 12 * HOUR)
    assert {group["id"]: [one["workflowID"] for one in group["rows"]] for group in groups} == {
        "overdue": ["overdue", "now"],
        "soon": ["soon-old", "soon-young"],
        "today": ["today"],
        "later": ["later"],
        "never": ["never"],
    }


async def test_a_list_is_refreshed_without_moving_what_is_read(page: Page) -> None:
    def row(name: str, at: int, status: str = "PENDING") -> dict[str, Any]:
        return {"workflowID": name, "createdAt": at, "status": status}

    shown = [row("c", 3), row("b", 2), row("a", 1)]
    fresh = [row("d", 4), row("b", 2, "SUCCESS")]
    now = await call(page, "data.js", "refreshed", shown, fresh, False)
    assert [(one["workflowID"], one["status"], one.get("gone", False)) for one in now["rows"]] == [
        ("c", "PENDING", True),
        ("b", "SUCCESS", False),
        ("a", "PENDING", False),  # older than the page that was read
    ]
    assert [one["workflowID"] for one in now["fresh"]] == ["d"]


async def test_an_action_on_many_counts_whom_it_reaches(page: Page) -> None:
    rows = [{"workflowID": str(n), "status": status} for n, status in enumerate(["PENDING", "ENQUEUED", "SUCCESS", "SUCCESS"])]
    assert await call(page, "ops/workflows.js", "preview", "cancel", rows) == {"allowed": 2, "refused": {"SUCCESS": 2}}
    assert (await call(page, "ops/workflows.js", "preview", "fork", rows))["allowed"] == 4


async def test_figures_add_up(page: Page) -> None:
    minute = NOON - NOON % 60_000
    rate = [
        {"queueName": "a", "minute": minute, "made": 3, "ended": 2, "failed": 1},
        {"queueName": "b", "minute": minute, "made": 1, "ended": 8, "failed": 0},
    ]
    queues = [
        {"queueName": "a", "queued": 2, "atWork": 1, "oldestQueuedAt": 7},
        {"queueName": "b", "queued": 0, "atWork": 4, "oldestQueuedAt": None},
    ]
    flow = {"at": NOON, "rate": rate, "queues": queues}
    whole = await call(page, "boards/throughput.js", "headline", flow)
    assert (whole["queued"], whole["atWork"], whole["oldest"], whole["ended"], whole["failed"]) == (2, 5, 7, 10, 1)
    assert whole["perMinute"] == 1
    assert (await call(page, "boards/throughput.js", "headline", flow, "b"))["oldest"] is None
    assert [await call(page, "ui/chart.js", "niceMax", n) for n in (0, 1, 3, 50, 51, 4200)] == [1, 1, 5, 50, 100, 5000]


async def test_a_start_says_what_is_missing_before_it_is_sent(page: Page) -> None:
    schema = {"properties": {"goal": {"type": "string"}, "n": {"type": "integer"}}, "required": ["goal"]}
    typed = {"values": {"n": "7"}, "lane": "batch", "partition": " ", "withBudget": True, "budget": {"maxFanout": "0"}}
    wrong = await call(page, "recipe/start.js", "startOf", {"id": "r", "v": "1"}, schema, typed)
    budget = {"maxFanout", "maxSBXMinutes", "maxArtifactsMB", "maxRetriesPerStep", "maxWallClockMS"}
    assert set(wrong["errors"]) == {"goal", "partition"} | budget
    right = typed | {"values": {"goal": "it's", "n": "7"}, "partition": "acme", "withBudget": False}
    found = await call(page, "recipe/start.js", "startOf", {"id": "r", "v": "1"}, schema, right)
    assert found == {
        "errors": {},
        "body": {
            "recipeRef": {"id": "r", "v": "1"},
            "formData": {"goal": "it's", "n": 7},
            "opts": {"lane": "batch", "queuePartitionKey": "acme"},
        },
    }
    curl = await call(page, "recipe/start.js", "asCurl", found["body"])
    said = subprocess.run(["sh", "-c", f'curl() {{ printf %s "$8"; }}; BASE=x; {curl}'], capture_output=True, check=True)  # noqa: ASYNC221
    assert json.loads(said.stdout) == found["body"]


LEADS: list[tuple[str, dict[str, Any]]] = [
    ("proof-ih_ab12-workflow", {"to": {"board": "run", "wid": "ih_ab12", "tab": "proof", "q": "proof-ih_ab12-workflow"}}),
    ("run:ih_ab12cd34", {"to": {"board": "run", "wid": "ih_ab12cd34", "tab": "proof"}}),
    ("/api/ops/flow", {"path": "/api/ops/flow"}),
    ("https://ci.example/1", {"url": "https://ci.example/1"}),
    ("javascript:alert(1)", {}),
    ("file:lanes/pf-quick.log", {}),
]


async def test_evidence_leads_where_it_can_be_seen(page: Page) -> None:
    for ref, lead in LEADS:
        assert await call(page, "boards/signoff.js", "leadOf", ref) == {"text": ref} | lead


async def test_reasons_are_said_in_words_with_the_runs_that_they_name(page: Page) -> None:
    tile = {"reason": "failing_runs_24h=2 (ih_a:failed, ih_b:retries_exceeded); commit_mismatch; by hand"}
    assert await call(page, "boards/signoff.js", "reasonsOf", tile) == [
        {
            "code": "failing_runs_24h=2 (ih_a:failed, ih_b:retries_exceeded)",
            "words": "2 runs failed in 24 hours",
            "samples": [{"wid": "ih_a", "what": "failed"}, {"wid": "ih_b", "what": "retries_exceeded"}],
        },
        {"code": "commit_mismatch", "words": "it is about another commit", "samples": []},
        {"code": "by hand", "words": None, "samples": []},
    ]
    assert await call(page, "boards/signoff.js", "isStale", tile)
    assert not await call(page, "boards/signoff.js", "isStale", {"reason": "missing signoff results"})


async def test_a_turn_of_the_flywheel_shows_how_far_it_is(page: Page) -> None:
    turn: dict[str, Any] = {
        "status": "under_way",
        "postmortem": None,
        "toV": None,
        "toStatus": None,
        "promotionWorkflowID": None,
        "rerunWorkflowID": None,
        "rerunStatus": None,
    }

    async def states(**more: Any) -> list[str]:
        return [one["state"] for one in await call(page, "boards/recipe.js", "linksOf", turn | more)]

    assert await states() == ["ERROR", "PENDING", "draft", "draft", "draft"]
    assert await states(postmortem="a", toV="2") == ["ERROR", "SUCCESS", "SUCCESS", "PENDING", "draft"]
    assert await states(status="rejected", postmortem="a", toV="2") == ["ERROR", "SUCCESS", "SUCCESS", "rejected", "CANCELLED"]
    whole = {"status": "published", "postmortem": "a", "toV": "2", "toStatus": "stable", "rerunStatus": "succeeded"}
    assert await states(**whole) == ["ERROR", "SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS"]
