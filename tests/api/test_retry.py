"""Retries over HTTP: what failed is done again, what went well is not, and people are asked only what they have not answered."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import Engine, TerminalError
from steps import approvals
from steps.contracts.plan import OCOutput
from steps.contracts.sandbox import ErrCode, SBXReq, SBXRes
from steps.execute_task import run_in_sandbox
from steps.identity import gate_key
from steps.opencode import AgentRequest, produced
from steps.sandbox import OnOutput, mock_result
from tests.api.older_client import RECIPES, Hold, OlderClient
from tests.api.samples import Rows
from tests.steps.product import Product, patch, replay

PATCHES: dict[str, Any] = {"plan": {"patchPlan": [patch("made.txt", "made")]}}
STORY = [("CompileST", 1), ("ApplyPatchST", 1), ("DecideST", 1)]


class Outside:
    """The agent and the sandbox. Both count what they are asked, and fail as often as a test wants."""

    provider = "mock"

    def __init__(self) -> None:
        self.asked = Counter[str]()
        self.failing_step = ""
        self.failures: list[ErrCode] = []
        self.commands: list[str] = []

    async def ask(self, request: AgentRequest) -> OCOutput:
        self.asked[request.step_id] += 1
        if request.step_id == self.failing_step:
            raise TerminalError("the agent is not well", name="agent_failed")
        return produced(request)

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        self.commands.append(request.cmd)
        code: ErrCode = self.failures.pop(0) if self.failures else "NONE"
        return mock_result(request, 0 if code == "NONE" else 1, code)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Outside:
    monkeypatch.setattr(run_in_sandbox, "backoff_s", 0.0)
    return Outside()


@pytest.fixture
async def older(
    client: httpx.AsyncClient, rows: Rows, engine: Engine, tmp_path: Path, outside: Outside
) -> AsyncIterator[OlderClient]:
    await rows.fetch(RECIPES)
    product = Product(engine, tmp_path, outside, outside, version="test")
    await product.start_worker()
    yield OlderClient(client, rows)
    await product.stop_worker()


async def retried(older: OlderClient, run_id: str, from_step: str) -> None:
    response = await older.retry(run_id)
    assert (response.status_code, response.json()) == (202, {"accepted": True, "newRunId": run_id, "fromStep": from_step})


async def children(older: OlderClient) -> list[tuple[str, str]]:
    """The sandbox tasks' own workflows: how their ids end behind the task's key, and how they ended."""
    return await older.rows.fetch(
        """select regexp_replace(workflow_uuid, '^[0-9a-f]{64}', ''), status from dbos.workflow_status
            where name = 'ExecuteTask' order by created_at, workflow_uuid"""
    )


async def test_a_failure_that_passes_is_repaired_by_a_retry(older: OlderClient, outside: Outside, tmp_path: Path) -> None:
    outside.failures = ["CMD_NONZERO"]
    run_id = await older.start(constraints=replay(**PATCHES))
    await older.approved(run_id)
    failed = await older.until(run_id, "retries_exceeded")
    assert (failed["error"], failed["nextAction"]) == ("SBX execution failed [CMD_NONZERO]", "REPAIR")
    assert not (tmp_path / "made.txt").exists()
    await retried(older, run_id, "ExecuteST")
    done = await older.until(run_id, "succeeded", retries=1)
    assert "error" not in done
    assert "nextAction" not in done
    assert (tmp_path / "made.txt").read_text() == "made"
    assert outside.asked == {"CompileST": 1, "DecideST": 1}
    assert await older.steps(run_id) == [*STORY, ("ExecuteST", 1), ("ExecuteST", 2)]
    assert [step["output"]["attempt"] for step in done["steps"]] == [1, 1, 1, 2]
    assert await older.rows.value("select count(*) from app.human_gates") == 1
    assert await older.rows.fetch("select rolled_back_at is null from app.patch_history") == [(True,)]
    assert await older.rows.fetch("select seen_count from app.mock_receipts") == [(1,)]


async def test_every_retry_is_one_more_try_with_tasks_of_its_own(older: OlderClient, outside: Outside) -> None:
    outside.failures = ["CMD_NONZERO"] * 3
    run_id = await older.start()
    await older.approved(run_id)
    for retries in range(3):
        await older.until(run_id, "retries_exceeded", retries=retries)
        await retried(older, run_id, "ExecuteST")
    await older.until(run_id, "succeeded", retries=3)
    assert await children(older) == [("", "SUCCESS"), (":2", "SUCCESS"), (":3", "SUCCESS"), (":4", "SUCCESS")]
    assert len(outside.commands) == 4
    tries = await older.rows.fetch("select attempt, err_code from app.sbx_runs order by attempt")
    assert tries == [(1, "CMD_NONZERO"), (4, "CMD_NONZERO"), (7, "CMD_NONZERO"), (10, "NONE")]


async def test_a_sandbox_that_could_not_be_had_is_asked_for_again(older: OlderClient, outside: Outside) -> None:
    outside.failures = ["BOOT_FAIL"] * 3
    run_id = await older.start()
    await older.approved(run_id)
    failed = await older.until(run_id, "retries_exceeded")
    assert failed["error"].startswith("SBX execution failed [BOOT_FAIL]")
    await retried(older, run_id, "ExecuteST")
    await older.until(run_id, "succeeded", retries=1)
    assert await older.steps(run_id) == [*STORY, ("ExecuteST", 2)]


async def test_an_agent_that_failed_is_asked_again_and_nobody_else(older: OlderClient, outside: Outside, tmp_path: Path) -> None:
    outside.failing_step = "DecideST"
    run_id = await older.start(constraints=replay(**PATCHES))
    await older.approved(run_id)
    failed = await older.until(run_id, "retries_exceeded")
    assert (failed["error"], failed["lastStep"]) == ("the agent is not well", "ApplyPatchST")
    assert not (tmp_path / "made.txt").exists()
    outside.failing_step = ""
    await retried(older, run_id, "DecideST")
    await older.until(run_id, "succeeded", retries=1)
    assert outside.asked == {"CompileST": 1, "DecideST": 2}
    assert await older.steps(run_id) == [*STORY[:2], ("DecideST", 2), ("ExecuteST", 2)]
    assert (tmp_path / "made.txt").read_text() == "made"


async def test_a_run_that_broke_at_its_first_step_begins_anew(older: OlderClient, outside: Outside) -> None:
    outside.failing_step = "CompileST"
    run_id = await older.start()
    await older.until(run_id, "retries_exceeded")
    outside.failing_step = ""
    await retried(older, run_id, "CompileST")
    await older.approved(run_id, retries=1)
    await older.until(run_id, "succeeded", retries=1)
    assert outside.asked == {"CompileST": 2, "DecideST": 1}


async def rejected(older: OlderClient, **constraints: Any) -> str:
    run_id = await older.start(constraints=constraints)
    await older.until(run_id, "waiting_input")
    assert (await older.send(run_id, choice="no", rationale="too bold")).status_code == 202
    await older.until(run_id, "retries_exceeded")
    return run_id


@pytest.mark.parametrize("way", ["approval", "event", "reply"])
async def test_a_plan_that_was_refused_is_asked_about_again_and_can_be_answered_in_every_way(
    older: OlderClient, tmp_path: Path, way: str
) -> None:
    run_id = await rejected(older, **replay(**PATCHES))
    old, new = (gate_key(run_id, "ApplyPatchST", "approve-plan", attempt) for attempt in (1, 2))
    await retried(older, run_id, "DecideST")
    await older.until(run_id, "waiting_input", retries=1)
    reply = {"payload": {"choice": "yes"}, "dedupeKey": "again", "origin": "manual"}
    assert (await older.http.post(f"/api/runs/{run_id}/gates/{old}/reply", json=reply)).status_code == 409
    if way == "approval":
        response = await older.approve(run_id)
    elif way == "event":
        response = await older.send(run_id, "approve-plan")
    else:
        await older.gate_is_open(run_id, new)
        response = await older.http.post(f"/api/runs/{run_id}/gates/{new}/reply", json=reply)
    assert response.status_code in (200, 202), response.text
    await older.until(run_id, "succeeded", retries=1)
    assert (tmp_path / "made.txt").read_text() == "made"
    answered = await older.rows.fetch("select gate_key from app.human_interactions order by created_at")
    assert answered == [(old,), (new,)]


async def test_a_refused_plan_that_is_approved_after_all_passes_its_gate_at_the_retry(older: OlderClient) -> None:
    run_id = await rejected(older)
    assert (await older.approve(run_id)).status_code == 202
    await retried(older, run_id, "DecideST")
    await older.until(run_id, "succeeded", retries=1)


async def test_an_approval_that_crosses_a_retry_is_not_lost(older: OlderClient) -> None:
    runs = await asyncio.gather(*(rejected(older) for _ in range(30)))

    async def approved_later(run_id: str, moment: int) -> None:
        await asyncio.sleep(moment * 0.002)
        assert (await older.approve(run_id)).status_code == 202

    answers = await asyncio.gather(
        *(older.retry(run_id) for run_id in runs), *(approved_later(run_id, moment) for moment, run_id in enumerate(runs))
    )
    assert {answer.status_code for answer in answers if answer is not None} == {202}
    for run_id in runs:
        await older.until(run_id, "succeeded", retries=1)


LOCK_WAITS = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


async def test_a_retry_lets_an_approval_that_is_under_way_go_first(older: OlderClient, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await rejected(older)
    hold = Hold(monkeypatch, approvals, "_find")
    approving = asyncio.create_task(older.approve(run_id))
    await hold.reached.wait()
    retrying = asyncio.create_task(older.retry(run_id))
    async with asyncio.timeout(20):
        while await older.rows.value(LOCK_WAITS) == 0:
            await asyncio.sleep(0.01)
    assert not retrying.done()
    hold.released.set()
    assert {(await approving).status_code, (await retrying).status_code} == {202}
    await older.until(run_id, "succeeded", retries=1)


async def test_one_of_many_retries_at_once_counts(older: OlderClient, outside: Outside) -> None:
    outside.failures = ["CMD_NONZERO"]
    run_id = await older.start()
    await older.approved(run_id)
    await older.until(run_id, "retries_exceeded")
    codes = [response.status_code for response in await asyncio.gather(*(older.retry(run_id) for _ in range(8)))]
    assert sorted(codes) == [202] + [409] * 7
    await older.until(run_id, "succeeded", retries=1)


async def test_a_question_that_nobody_answered_is_asked_again(older: OlderClient) -> None:
    run_id = await older.start(constraints={"askUser": True, "timeoutS": 1})
    failed = await older.until(run_id, "retries_exceeded")
    assert failed["error"] == "Ask-user gate timed out"
    await retried(older, run_id, "ApplyPatchST")
    await older.until(run_id, "waiting_input", retries=1)
    assert (await older.send(run_id, answer="42")).status_code == 202
    await older.approve(run_id)
    await older.until(run_id, "succeeded", retries=1)


async def test_a_question_that_was_answered_is_not_asked_again(older: OlderClient, tmp_path: Path) -> None:
    (tmp_path / "made.txt").mkdir()
    run_id = await older.start(constraints={"askUser": True, **replay(**PATCHES)})
    await older.until(run_id, "waiting_input")
    assert (await older.send(run_id, answer="42")).status_code == 202
    failed = await older.until(run_id, "retries_exceeded")
    assert failed["error"] == "PATCH_PATH_NOT_ALLOWED:made.txt"
    (tmp_path / "made.txt").rmdir()
    await retried(older, run_id, "ApplyPatchST")
    await older.approved(run_id, retries=1)
    await older.until(run_id, "succeeded", retries=1)
    asked = await older.rows.fetch("select gate_key from app.human_gates order by created_at")
    assert asked == [
        (gate_key(run_id, "CompileST", "ask-user", 1),),
        (gate_key(run_id, "ApplyPatchST", "approve-plan", 2),),
    ]
    assert "Answer from the user: 42" in await older.rows.value(
        "select prompt from app.opencode_calls where step_id = 'DecideST'"
    )


async def test_a_budget_that_is_too_small_stays_too_small(older: OlderClient) -> None:
    budget = {"maxFanout": 1, "maxSBXMinutes": 5, "maxArtifactsMB": 5, "maxRetriesPerStep": 0, "maxWallClockMS": 60_000}
    run_id = await older.start(constraints=replay(build={"tests": ["a", "b"]}), budget=budget)
    await older.approved(run_id)
    for retries in range(2):
        failed = await older.until(run_id, "retries_exceeded", retries=retries)
        assert failed["error"] == "budget:maxFanout: observed 2 > limit 1 (runtime)"
        if retries == 0:
            await retried(older, run_id, "ExecuteST")
