"""The run, from intent to result, on a real database with a worker in this process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from steps import identity
from steps.contracts.plan import OCOutput, ToolCall
from steps.contracts.sandbox import SBXReq, SBXRes
from steps.errors import Conflict, NotFound
from steps.execute_task import run_in_sandbox
from steps.opencode import AgentRequest, produced
from steps.retry import Retry, retry_run
from steps.sandbox import OnOutput, mock_result
from tests.steps.product import Product, patch, product, replay


@pytest.fixture
async def runs(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Product]:
    monkeypatch.setattr(run_in_sandbox, "backoff_s", 0.0)
    async with product(database, tmp_path) as one:
        yield one


STREAM_CLOSED = "__DBOS_STREAM_CLOSED__"


def names(artifacts: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    return [(a["idx"], a["kind"], a["uri"].rpartition("/")[2]) for a in artifacts]


# The way through ---------------------------------------------------------------------------------------------------------


async def test_an_approved_plan_is_executed_and_leaves_four_steps(runs: Product) -> None:
    wid = await runs.start()
    await runs.approve(wid)
    await runs.result(wid)
    steps = await runs.steps(wid)
    assert {name: row["phase"] for name, row in steps.items()} == {
        "CompileST": "compilation",
        "ApplyPatchST": "patching",
        "DecideST": "planning",
        "ExecuteST": "execution",
    }
    assert [row["output"]["attempt"] for row in steps.values()] == [1, 1, 1, 1]
    assert steps["CompileST"]["output"]["design"] == ["Design for: alpha"]
    assert steps["ExecuteST"]["output"]["stdout"] == "OK: pnpm test\n"
    assert all(row["started_at"] <= row["finished_at"] for row in steps.values())


async def test_the_run_and_its_workflow_end_together(runs: Product) -> None:
    wid = await runs.start()
    await runs.approve(wid)
    await runs.result(wid)
    run, workflow = await runs.run(wid), await runs.engine.status(wid)
    assert workflow is not None
    assert (run["status"], run["last_step"], run["next_action"], run["error"]) == (
        "succeeded",
        "ExecuteST",
        None,
        None,
    )
    assert (workflow.status, workflow.queue, workflow.class_name) == ("SUCCESS", "intentQ", "IntentWorkflow")
    *said, end = await runs.engine.stream(wid, "status")
    assert said == ["running", "waiting_input", "running", "succeeded"]
    assert end == STREAM_CLOSED


async def test_a_run_waits_for_its_plan_to_be_approved(runs: Product) -> None:
    wid = await runs.start()
    key = await runs.prompt(wid)
    run = await runs.run(wid)
    assert (run["status"], run["last_step"], run["next_action"]) == (
        "waiting_input",
        "ApplyPatchST",
        "APPROVE_PLAN",
    )
    assert "DecideST" not in await runs.steps(wid)
    prompt = (await runs.events(wid))[f"ui:{key}"]
    assert prompt["formSchema"]["fields"][0] == {"k": "choice", "t": "enum", "vs": ["yes", "no"]}
    assert prompt["deadlineAt"] == prompt["createdAt"] + 600_000
    (gate,) = await runs.rows("select * from app.human_gates")
    assert (gate["gate_key"], gate["topic"], gate["resolved_at"]) == (key, f"human:{key}", None)


async def test_a_gate_says_what_was_answered_by_whom_and_what_it_meant(runs: Product) -> None:
    wid = await runs.start()
    key = await runs.prompt(wid)
    reply = {"decision": "approved", "note": "looks right", "actor": "kim"}
    await runs.reply(wid, key, **reply)
    await runs.result(wid)
    events = await runs.events(wid)
    result, audit, decision = events[f"ui:{key}:result"], events[f"ui:{key}:audit"], events[f"decision:{key}"]
    assert (result["state"], result["payload"], result["payloadHash"]) == (
        "RECEIVED",
        reply,
        identity.payload_hash(reply),
    )
    assert (audit["event"], audit["actor"], audit["reason"]) == ("RECEIVED", "kim", "looks right")
    assert (decision["decision"], decision["payload"]) == ("yes", {"rationale": "looks right"})
    (gate,) = await runs.rows("select resolved_at is not null as resolved from app.human_gates")
    assert gate["resolved"]


async def test_a_plan_that_was_approved_ahead_does_not_wait(runs: Product) -> None:
    await runs.stop_worker()
    wid = await runs.start()
    await runs.engine.pool.wait()
    async with runs.engine.transaction() as conn:
        await conn.execute("insert into app.plan_approvals (run_id, approved_by) values (%s, 'po')", (identity.run_id(wid),))
    await runs.start_worker()
    await runs.result(wid)
    key = await runs.prompt(wid)
    assert (await runs.events(wid))[f"ui:{key}:audit"]["actor"] == "legacy-plan-approvals"


async def test_an_intent_may_ask_for_input_first(runs: Product) -> None:
    wid = await runs.start(constraints={"askUser": True})
    key = await runs.prompt(wid, "ask-user", "CompileST")
    run = await runs.run(wid)
    assert (run["status"], run["last_step"], run["next_action"]) == ("waiting_input", "CompileST", None)
    await runs.reply(wid, key, answer="42")
    await runs.approve(wid)
    await runs.result(wid)
    (call,) = await runs.rows("select prompt from app.opencode_calls where step_id = 'DecideST'")
    assert "Answer from the user: 42" in call["prompt"]
    assert f"decision:{key}" not in await runs.events(wid)


async def test_two_approvals_are_asked_for_side_by_side_and_both_are_needed(runs: Product) -> None:
    constraints = {"testHooks": {"parallelApprovals": True}}
    wid = await runs.start(constraints=constraints)
    first, second = await runs.prompt(wid, "parallel-1"), await runs.prompt(wid, "parallel-2")
    assert (await runs.run(wid))["status"] == "waiting_input"
    await runs.reply(wid, second, choice="no", rationale="not yet")
    await runs.engine.get_event(wid, f"decision:{second}", timeout_s=20)
    assert (await runs.run(wid))["status"] == "waiting_input"
    await runs.reply(wid, first, choice="yes")
    failure = await runs.failure(wid)
    assert failure.message == "Plan approval failed: no (rationale: not yet)"
    events = await runs.events(wid)
    assert (events[f"decision:{first}"]["decision"], events[f"decision:{second}"]["decision"]) == (
        "yes",
        "no",
    )


async def test_each_test_of_a_build_is_a_task_of_its_own(runs: Product) -> None:
    wid = await runs.start(constraints=replay(build={"tests": ["a", "b", "a"], "test_command": "run"}))
    await runs.approve(wid)
    await runs.result(wid)
    tasks = await runs.rows("select task_key, request, err_code, attempt from app.sbx_runs order by request->>'cmd'")
    assert [(t["request"]["cmd"], t["err_code"], t["attempt"]) for t in tasks] == [
        ("run a", "NONE", 1),
        ("run b", "NONE", 1),
    ]
    children = await runs.rows(
        "select workflow_uuid, queue_name, queue_partition_key, priority from dbos.workflow_status where parent_workflow_id = %s",
        wid,
    )
    assert {c["workflow_uuid"] for c in children} == {t["task_key"] for t in tasks}
    assert {(c["queue_name"], c["queue_partition_key"], c["priority"]) for c in children} == {("sbxQ", "tenant-1", 1)}
    output = (await runs.steps(wid))["ExecuteST"]["output"]
    assert output["stdout"] == "OK: run a\n\n---\nOK: run b\n"
    assert (output["taskKey"], output["metrics"]["wallMs"], output["metrics"]["cpuMs"]) == (
        "aggregated",
        10,
        10,
    )


async def test_every_step_leaves_its_artifacts(runs: Product) -> None:
    wid = await runs.start()
    await runs.approve(wid)
    await runs.result(wid)
    assert names(await runs.artifacts(wid, "CompileST")) == [(0, "plan_card", "plan.json")]
    assert names(await runs.artifacts(wid, "ApplyPatchST")) == [(999, "none", "none")]
    assert names(await runs.artifacts(wid, "DecideST")) == [(999, "none", "none")]
    execution = await runs.artifacts(wid, "ExecuteST")
    assert names(execution) == [
        (0, "artifact_index", "index.json"),
        (1, "file", "out.json"),
        (2, "timings", "metrics.json"),
        (3, "raw", "raw.json"),
        (4, "timings", "sbx-boot.json"),
        (5, "log", "stderr.log"),
        (6, "log", "stdout.log"),
    ]
    index = execution[0]["inline"]["json"]
    assert [(item["uri"], item["sha256"]) for item in index["items"]] == [(a["uri"], a["sha256"]) for a in execution[1:]]
    assert execution[4]["inline"]["json"]["bootMs"] == 50


async def test_a_success_leaves_one_receipt(runs: Product) -> None:
    wid = await runs.start()
    await runs.approve(wid)
    await runs.result(wid)
    assert [r["seen_count"] for r in await runs.rows("select seen_count from app.mock_receipts")] == [1]


# Patches -----------------------------------------------------------------------------------------------------------------

PATCHES = replay(
    plan={
        "patchPlan": [
            patch("old.txt", "new text"),
            patch("made/new.txt", "made"),
            patch("old.txt", "newer text"),
        ]
    }
)


async def test_an_approved_plan_changes_files_for_good(runs: Product) -> None:
    (runs.workspace / "old.txt").write_text("old text")
    wid = await runs.start(constraints=PATCHES)
    await runs.approve(wid)
    await runs.result(wid)
    assert (runs.workspace / "old.txt").read_text() == "newer text"
    assert (runs.workspace / "made/new.txt").read_text() == "made"
    ledger = await runs.patches(wid)
    assert [(p["preimage_content"], p["postimage_content"]) for p in ledger] == [
        ("old text", "new text"),
        ("", "made"),
        ("new text", "newer text"),
    ]
    assert all(p["created_at"] <= p["applied_at"] and p["rolled_back_at"] is None for p in ledger)
    artifacts = await runs.artifacts(wid, "ApplyPatchST")
    assert names(artifacts) == [(i, "patch_apply", f"patch-{i}.json") for i in range(3)]
    assert artifacts[0]["inline"]["json"]["preimageHash"] == ledger[0]["preimage_hash"]


async def test_a_rejected_plan_changes_the_files_back(runs: Product) -> None:
    (runs.workspace / "old.txt").write_text("old text")
    wid = await runs.start(constraints=PATCHES)
    await runs.reply(wid, await runs.prompt(wid), choice="no", rationale="too bold")
    failure = await runs.failure(wid)
    assert failure.message == "Plan approval failed: no (rationale: too bold)"
    run = await runs.run(wid)
    assert (run["status"], run["next_action"], run["error"]) == (
        "retries_exceeded",
        "REPAIR",
        failure.message,
    )
    assert (runs.workspace / "old.txt").read_text() == "old text"
    assert not (runs.workspace / "made/new.txt").exists()
    assert all(p["created_at"] <= p["applied_at"] <= p["rolled_back_at"] for p in await runs.patches(wid))
    assert (await runs.engine.stream(wid, "status"))[:-1] == ["running", "waiting_input", "failed"]


async def test_a_file_that_somebody_else_changed_is_not_taken_back(runs: Product) -> None:
    wid = await runs.start(constraints=PATCHES)
    key = await runs.prompt(wid)
    (runs.workspace / "old.txt").write_text("somebody's work")
    await runs.reply(wid, key, choice="no")
    failure = await runs.failure(wid)
    assert failure.name == "APPLY_PATCH_ROLLBACK_FAILED"
    assert failure.message == (
        "APPLY_PATCH_ROLLBACK_FAILED:POSTIMAGE_MISMATCH:old.txt;source=Plan approval failed: no (rationale: none)"
    )
    assert (runs.workspace / "old.txt").read_text() == "somebody's work"
    assert (runs.workspace / "made/new.txt").read_text() == "made"


async def test_a_plan_may_not_reach_outside_of_the_workspace(runs: Product) -> None:
    wid = await runs.start(constraints=replay(plan={"patchPlan": [patch("ok.txt", "ok"), patch("../out.txt", "out")]}))
    failure = await runs.failure(wid)
    assert failure.message == "PATCH_PATH_NOT_ALLOWED:../out.txt"
    assert list(runs.workspace.iterdir()) == []
    assert await runs.patches(wid) == []
    assert "ApplyPatchST" not in await runs.steps(wid)


async def test_a_cancelled_run_is_rolled_back_in_its_place_and_goes_on_when_resumed(runs: Product) -> None:
    (runs.workspace / "old.txt").write_text("old text")
    wid = await runs.start(constraints=PATCHES)
    key = await runs.prompt(wid)
    await runs.engine.cancel(wid)
    (rollback,) = await runs.rows("select workflow_uuid from dbos.workflow_status where name = 'RollbackRun'")
    assert await runs.result(rollback["workflow_uuid"]) == [2, 1, 0]
    assert (runs.workspace / "old.txt").read_text() == "old text"
    assert (await runs.run(wid))["status"] == "canceled"
    await runs.engine.resume(wid)
    await runs.reply(wid, key, choice="yes")
    await runs.result(wid)
    assert (runs.workspace / "old.txt").read_text() == "newer text"
    assert all(p["applied_at"] and p["rolled_back_at"] is None for p in await runs.patches(wid))
    assert (await runs.run(wid))["status"] == "succeeded"


async def test_a_run_that_goes_on_is_not_rolled_back_from_outside(runs: Product) -> None:
    wid = await runs.start(constraints=PATCHES)
    await runs.prompt(wid)
    handle = await runs.engine.enqueue("RollbackRun", wid, queue="controlQ")
    assert await handle.result(20) == []
    assert (runs.workspace / "old.txt").read_text() == "newer text"


# Time --------------------------------------------------------------------------------------------------------------------


async def test_a_gate_that_nobody_answers_times_out_and_escalates_once(runs: Product) -> None:
    wid = await runs.start(constraints=PATCHES | {"planApprovalTimeoutS": 1})
    failure = await runs.failure(wid)
    assert failure.message == "Plan approval failed: no (rationale: timeout)"
    key = await runs.prompt(wid)
    events = await runs.events(wid)
    assert (events[f"ui:{key}:result"]["state"], events[f"ui:{key}:result"]["payload"]) == ("TIMED_OUT", None)
    assert (events[f"ui:{key}:audit"]["event"], events[f"ui:{key}:audit"]["reason"]) == (
        "TIMED_OUT",
        "TTL expired",
    )
    assert (events[f"decision:{key}"]["decision"], events[f"decision:{key}"]["payload"]) == (
        "no",
        {"rationale": "timeout"},
    )
    escalation = await runs.engine.status(f"esc:{wid}:{key}")
    assert escalation is not None
    assert (escalation.name, escalation.queue) == ("EscalateTimeout", "controlQ")
    await runs.result(escalation.id)
    (note,) = await runs.artifacts(wid, "EscalateTimeout")
    assert (note["idx"], note["kind"], note["task_key"]) == (999, "ops", key)
    assert note["inline"]["json"]["event"] == "TIMEOUT_ESCALATION"
    assert not (runs.workspace / "old.txt").exists()


async def test_an_unanswered_question_ends_the_run(runs: Product) -> None:
    wid = await runs.start(constraints={"askUser": True, "timeoutS": 1})
    assert (await runs.failure(wid)).message == "Ask-user gate timed out"
    assert "ApplyPatchST" not in await runs.steps(wid)


# Failure -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "code"), [("FAIL_ME", "CMD_NONZERO"), ("TIMEOUT_ME", "TIMEOUT")])
async def test_a_command_that_fails_is_recorded_and_ends_the_run(runs: Product, command: str, code: str) -> None:
    constraints = replay(plan={"patchPlan": [patch("a.txt", "a")]}, build={"test_command": command})
    wid = await runs.start(constraints=constraints)
    await runs.approve(wid)
    assert (await runs.failure(wid)).message == f"SBX execution failed [{code}]"
    run = await runs.run(wid)
    assert (run["status"], run["last_step"], run["next_action"]) == (
        "retries_exceeded",
        "ExecuteST",
        "REPAIR",
    )
    assert (await runs.steps(wid))["ExecuteST"]["output"]["errCode"] == code
    assert [r["attempt"] for r in await runs.rows("select attempt from app.sbx_runs")] == [1]
    assert await runs.rows("select * from app.mock_receipts") == []
    assert not (runs.workspace / "a.txt").exists()


async def test_a_sandbox_that_never_boots_is_tried_three_times(runs: Product) -> None:
    wid = await runs.start(constraints=replay(build={"test_command": "INFRA_FAIL"}))
    await runs.approve(wid)
    failure = await runs.failure(wid)
    assert "exceeded its maximum of 3 retries" in failure.message
    assert failure.message.startswith("SBX execution failed [BOOT_FAIL]")
    tries = await runs.rows("select attempt, err_code from app.sbx_runs order by attempt")
    assert [(t["attempt"], t["err_code"]) for t in tries] == [
        (1, "BOOT_FAIL"),
        (2, "BOOT_FAIL"),
        (3, "BOOT_FAIL"),
    ]
    assert "ExecuteST" not in await runs.steps(wid)
    assert (await runs.run(wid))["status"] == "retries_exceeded"


async def test_a_sandbox_that_boots_at_the_third_try_is_good_enough(runs: Product) -> None:
    wid = await runs.start(constraints=replay(build={"test_command": "FLAKY_INFRA_FAIL"}))
    await runs.approve(wid)
    await runs.result(wid)
    tries = await runs.rows("select attempt, err_code from app.sbx_runs order by attempt")
    assert [(t["attempt"], t["err_code"]) for t in tries] == [(1, "BOOT_FAIL"), (2, "BOOT_FAIL"), (3, "NONE")]
    output = (await runs.steps(wid))["ExecuteST"]["output"]
    assert (output["attempt"], output["raw"]["attempt"]) == (1, 3)


BUDGET = {
    "maxFanout": 2,
    "maxSBXMinutes": 10,
    "maxArtifactsMB": 10,
    "maxRetriesPerStep": 3,
    "maxWallClockMS": 600_000,
}


@pytest.mark.parametrize(
    ("metric", "limit", "build", "unit"),
    [
        ("maxFanout", 2, {"tests": ["a", "b", "c"]}, "tasks"),
        ("maxRetriesPerStep", 1, {"test_command": "FLAKY_INFRA_FAIL"}, "retries"),
    ],
)
async def test_a_broken_budget_ends_the_run_and_says_which(
    runs: Product, metric: str, limit: int, build: dict[str, Any], unit: str
) -> None:
    constraints = replay(plan={"patchPlan": [patch("a.txt", "a")]}, build=build)
    wid = await runs.start(constraints=constraints, budget=BUDGET | {metric: limit})
    await runs.approve(wid)
    failure = await runs.failure(wid)
    assert failure.message == f"budget:{metric}: observed {limit + 1} > limit {limit} (runtime)"
    (artifact,) = await runs.artifacts(wid, "BUDGET")
    assert (artifact["idx"], artifact["kind"], artifact["task_key"]) == (0, "json_diagnostic", metric)
    assert artifact["inline"]["json"] == {
        "kind": "budget",
        "metric": metric,
        "scope": "runtime",
        "limit": limit,
        "observed": limit + 1,
        "unit": unit,
        "outcome": "blocked",
        "reason": failure.message,
    }
    assert (await runs.run(wid))["error"] == failure.message
    assert "ExecuteST" not in await runs.steps(wid)
    assert not (runs.workspace / "a.txt").exists()


async def test_a_run_within_its_budget_succeeds(runs: Product) -> None:
    wid = await runs.start(budget=BUDGET)
    await runs.approve(wid)
    await runs.result(wid)
    assert await runs.artifacts(wid, "BUDGET") == []


async def test_the_wall_clock_budget_counts_from_the_start_of_the_run(runs: Product) -> None:
    wid = await runs.start(budget=BUDGET | {"maxWallClockMS": 1})
    await runs.approve(wid)
    assert (await runs.failure(wid)).message.startswith("budget:maxWallClockMS: observed ")


class MeddlingAgent:
    """Calls a tool that a planner has no business with."""

    async def ask(self, request: AgentRequest) -> OCOutput:
        return produced(request).model_copy(update={"toolcalls": [ToolCall(name="write", args={})]})


async def test_a_planner_that_writes_is_stopped_before_its_plan_counts(database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path, opencode=MeddlingAgent()) as runs:
        wid = await runs.start()
        assert (await runs.failure(wid)).message == "tool-denied: write for agent plan"
        assert await runs.steps(wid) == {}
        (call,) = await runs.rows("select error, structured from app.opencode_calls")
        assert call["error"]["name"] == "tool_denied"
        (diagnosis,) = await runs.artifacts(wid, "CompileST")
        assert (diagnosis["idx"], diagnosis["kind"]) == (999, "json_diagnostic")


async def test_a_run_without_a_row_fails_and_says_so(runs: Product) -> None:
    await runs.engine.enqueue("RunIntent", "ih_nothing", id="ih_nothing", class_name="IntentWorkflow", queue="intentQ")
    assert (await runs.failure("ih_nothing")).name == "RunNotFound"


# Retries -----------------------------------------------------------------------------------------------------------------


async def test_a_retry_runs_the_tasks_of_an_approved_plan_again_without_asking(database: str, tmp_path: Path) -> None:
    sandbox = BrokenUntilRepaired()
    async with product(database, tmp_path, sandbox=sandbox) as runs:
        wid = await runs.start(constraints=PATCHES)
        await runs.approve(wid)
        assert (await runs.failure(wid)).message == "SBX execution failed [CMD_NONZERO]"
        assert not (tmp_path / "old.txt").exists()
        sandbox.repaired = True
        assert await retry_run(runs.engine, wid) == Retry(identity.run_id(wid), wid, "ExecuteST")
        await runs.result(wid)
        run = await runs.run(wid)
        assert (run["status"], run["retry_count"], run["error"], run["next_action"]) == (
            "succeeded",
            1,
            None,
            None,
        )
        rows = await runs.rows("select step_id, attempt, output->>'errCode' as code from app.run_steps order by started_at")
        assert [(r["step_id"], r["attempt"], r["code"]) for r in rows] == [
            ("CompileST", 1, None),
            ("ApplyPatchST", 1, None),
            ("DecideST", 1, None),
            ("ExecuteST", 1, "CMD_NONZERO"),
            ("ExecuteST", 2, "NONE"),
        ]
        tries = await runs.rows("select attempt, err_code from app.sbx_runs order by attempt")
        assert [(t["attempt"], t["err_code"]) for t in tries] == [(1, "CMD_NONZERO"), (4, "NONE")]
        assert (tmp_path / "old.txt").read_text() == "newer text"
        assert all(p["applied_at"] and p["rolled_back_at"] is None for p in await runs.patches(wid))


async def test_a_retry_of_a_rejected_plan_asks_again(runs: Product) -> None:
    wid = await runs.start(constraints=PATCHES)
    await runs.reply(wid, await runs.prompt(wid), choice="no")
    await runs.failure(wid)
    assert (await retry_run(runs.engine, identity.run_id(wid))).from_step == "DecideST"
    await runs.reply(wid, await runs.prompt(wid, attempt=2), choice="yes")
    await runs.result(wid)
    assert (runs.workspace / "old.txt").read_text() == "newer text"
    assert (await runs.run(wid))["retry_count"] == 1


async def test_every_retry_counts_and_fails_alike_when_nothing_changed(runs: Product) -> None:
    wid = await runs.start(constraints=replay(build={"test_command": "FAIL_ME"}))
    await runs.approve(wid)
    await runs.failure(wid)
    for retries in (1, 2):
        assert (await retry_run(runs.engine, wid)).from_step == "ExecuteST"
        await runs.failure(wid)
        run = await runs.run(wid)
        assert (run["status"], run["retry_count"], run["next_action"]) == (
            "retries_exceeded",
            retries,
            "REPAIR",
        )
        assert run["error"] == "SBX execution failed [CMD_NONZERO]"


async def test_a_run_that_has_not_failed_cannot_be_retried(runs: Product) -> None:
    wid = await runs.start()
    await runs.prompt(wid)
    with pytest.raises(Conflict, match="cannot retry run in status waiting_input"):
        await retry_run(runs.engine, wid)
    with pytest.raises(NotFound):
        await retry_run(runs.engine, "ih_nothing")


async def test_one_of_two_retries_at_the_same_time_is_refused(runs: Product) -> None:
    wid = await runs.start(constraints=replay(build={"test_command": "FAIL_ME"}))
    await runs.approve(wid)
    await runs.failure(wid)
    await runs.stop_worker()
    outcomes = await asyncio.gather(*(retry_run(runs.engine, wid) for _ in range(4)), return_exceptions=True)
    assert sorted(type(o).__name__ for o in outcomes) == ["Conflict", "Conflict", "Conflict", "Retry"]
    assert (await runs.run(wid))["retry_count"] == 1


class BrokenUntilRepaired:
    """A sandbox in which every command fails until somebody repairs it."""

    provider = "mock"
    repaired = False

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        return mock_result(request, 0, "NONE") if self.repaired else mock_result(request, 1, "CMD_NONZERO")


# Forks -------------------------------------------------------------------------------------------------------------------


class CountingAgent:
    """Answers like a replay, and counts."""

    asked = 0

    async def ask(self, request: AgentRequest) -> OCOutput:
        self.asked += 1
        return produced(request)


async def test_a_fork_asks_no_agent_again_and_leaves_the_run_as_it_is(database: str, tmp_path: Path) -> None:
    agent = CountingAgent()
    async with product(database, tmp_path, opencode=agent) as runs:
        wid = await runs.start(constraints=PATCHES)
        await runs.approve(wid)
        await runs.result(wid)
        before = await runs.run(wid)
        fork = await runs.engine.fork(wid, 1)
        await runs.result(fork)
        assert agent.asked == 2
        assert await runs.run(wid) == before
        assert [r["seen_count"] for r in await runs.rows("select seen_count from app.mock_receipts")] == [1]
        assert len(await runs.rows("select * from app.run_steps")) == 4
        assert (tmp_path / "old.txt").read_text() == "newer text"


async def test_a_fork_that_fails_does_not_undo_its_original(database: str, tmp_path: Path) -> None:
    sandbox = BrokenUntilRepaired()
    sandbox.repaired = True
    async with product(database, tmp_path, sandbox=sandbox) as runs:
        wid = await runs.start(constraints=PATCHES)
        await runs.approve(wid)
        await runs.result(wid)
        sandbox.repaired = False
        fork = await runs.engine.fork(wid, 1)
        assert (await runs.failure(fork)).name == "SandboxFailed"
        assert (tmp_path / "old.txt").read_text() == "newer text"
        assert (await runs.run(wid))["status"] == "succeeded"
        assert [row["output"]["errCode"] for row in (await runs.steps(wid)).values() if row["step_id"] == "ExecuteST"] == ["NONE"]


# Crashes -----------------------------------------------------------------------------------------------------------------


async def test_a_run_that_waits_outlives_its_worker_and_asks_once(runs: Product) -> None:
    wid = await runs.start(constraints=PATCHES)
    key = await runs.prompt(wid)
    asked = (await runs.events(wid))[f"ui:{key}"]
    await runs.stop_worker()
    await runs.reply(wid, key, choice="yes")
    await runs.start_worker()
    await runs.result(wid)
    assert (await runs.events(wid))[f"ui:{key}"] == asked
    history = await runs.rows(
        "select * from dbos.workflow_events_history where workflow_uuid = %s and key = %s", wid, f"ui:{key}"
    )
    assert len(history) == 1
    assert [r["attempt"] for r in await runs.rows("select attempt from app.run_steps")] == [1, 1, 1, 1]


async def test_the_crash_demonstration_marks_each_step_once(runs: Product) -> None:
    handle = await runs.engine.enqueue("CrashDemo", "demo-1", 0.05, id="demo-1", queue="intentQ")
    await handle.result(20)
    marks = await runs.rows("select step from app.marks where run_id = 'demo-1' order by step")
    assert [m["step"] for m in marks] == ["s1", "s2"]
    (flags,) = await runs.rows("select * from app.workflow_runs where workflow_id = 'demo-1'")
    assert flags["completed"]
