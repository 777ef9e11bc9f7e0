"""Cancel, resume and fork of a run over HTTP, with a worker beside the front door: at its gate, in its sandbox, in its queue."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import Engine, WorkflowFailed
from steps import identity
from steps.contracts.base import parse
from steps.contracts.intent import RunStartRequest
from steps.contracts.recipe import RecipeBundle
from steps.contracts.sandbox import SBXReq, SBXRes
from steps.ingress import start_run
from steps.opencode import ReplayOpenCode
from steps.policy import QueueRules
from steps.recipes import import_bundle
from steps.sandbox import OnOutput, mock_result
from steps.worker import QUEUES, Limits, Ports, configure, workflows
from tests.api.samples import SPEC, START, Rows, changed

WAIT_S = 20.0
WHO: dict[str, Any] = {"actor": "ada", "reason": "drill"}
YES: dict[str, Any] = {"payload": {"choice": "yes"}, "dedupeKey": "yes", "origin": "manual"}

#: Plans that change a file.
PLAN = {"patchPlan": [{"targetPath": "old.txt", "postimageContent": "new", "diffText": "+new"}]}
PATCHING = parse(
    RecipeBundle,
    {
        "id": "patching",
        "versions": [changed(SPEC, id="patching", intentTmpl__constraints={"testHooks": {"replay": {"plan": PLAN}}})],
    },
)
ASKING = parse(
    RecipeBundle,
    {"id": "asking", "versions": [changed(SPEC, id="asking", intentTmpl__constraints={"askUser": True})]},
)
START_ASKING: dict[str, Any] = START | {"recipeRef": {"id": "asking", "v": "1.0.0"}}
START_PATCHING: dict[str, Any] = START | {"recipeRef": {"id": "patching", "v": "1.0.0"}}


class HeldSandbox:
    """Every task waits until it is let go; a task that was cut off counts as entered again when it comes again."""

    provider = "mock"

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.free = asyncio.Event()
        self.cut_off = 0

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        self.entered.append(key)
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        return mock_result(request, 0, "NONE")


class Stage:
    """What a test says and sees."""

    def __init__(self, client: httpx.AsyncClient, rows: Rows, workspace: Path) -> None:
        self.client = client
        self.rows = rows
        self.workspace = workspace
        self.sandbox = HeldSandbox()
        self.file = workspace / "old.txt"
        self.file.write_text("old")

    async def start(self, request: dict[str, Any] = START_PATCHING, **form: str) -> str:
        response = await self.client.post("/api/run", json=request | {"formData": request["formData"] | form})
        assert response.status_code == 201, response.text
        return response.json()["workflowID"]

    async def header(self, wid: str) -> tuple[str, str, str | None]:
        header = (await self.client.get(f"/api/runs/{wid}")).json()
        return header["status"], header["durableStatus"], header["nextAction"]

    async def act(self, op: str, wid: str, **more: Any) -> dict[str, Any]:
        response = await self.client.post(f"/api/ops/wf/{wid}/{op}", json=WHO | more)
        assert response.status_code == 202, response.text
        return response.json()

    async def fork(self, wid: str, step: int | None = None) -> str:
        """From this record on, or from the last."""
        steps = (await self.client.get(f"/api/ops/wf/{wid}/steps")).json()
        return (await self.act("fork", wid, stepN=step or steps[-1]["functionId"]))["forkedWorkflowID"]

    def gate(self, wid: str) -> str:
        return identity.gate_key(identity.run_id(wid), "ApplyPatchST", "approve-plan", 1)

    async def at_gate(self, wid: str, fork: str | None = None) -> None:
        """Until the run, or the fork of it, waits at its gate."""
        await self.until(lambda: self.waits(fork or wid, f"t:human:{self.gate(wid)}"))

    async def waits(self, wid: str, token: str) -> bool:
        row = await self.rows.engine.status(wid)
        return row is not None and row.waits is not None and token in row.waits

    async def answer(self, wid: str, reply: dict[str, Any] = YES) -> None:
        response = await self.client.post(f"/api/runs/{wid}/gates/{self.gate(wid)}/reply", json=reply)
        assert response.status_code == 200, response.text

    async def in_sandbox(self, count: int = 1) -> None:
        await self.until(lambda: self.entered(count))

    async def entered(self, count: int) -> bool:
        return len(self.sandbox.entered) >= count

    async def was_cut_off(self) -> bool:
        return self.sandbox.cut_off > 0

    async def result(self, wid: str) -> Any:
        return await self.rows.engine.result(wid, timeout_s=WAIT_S)

    async def rolled_back(self) -> None:
        """Until the workflows that roll back have ended."""
        unfinished = "select count(*) from dbos.workflow_status where name = 'RollbackRun' and status not in ('SUCCESS', 'ERROR')"

        async def settled() -> bool:
            return await self.rows.value(unfinished) == 0

        await self.until(settled)

    async def record(self, wid: str) -> list[list[tuple[Any, ...]]]:
        """Everything that is written of the run, the operators' actions aside."""
        run = identity.run_id(wid)
        return [
            await self.rows.fetch("select * from app.runs where id = %s", run),
            await self.rows.fetch("select * from app.run_steps where run_id = %s order by step_id, attempt", run),
            await self.rows.fetch(
                "select * from app.artifacts where run_id = %s and step_id <> 'OPS' order by step_id, task_key, idx", run
            ),
            await self.rows.fetch("select * from app.human_gates where run_id = %s", run),
            await self.rows.fetch("select * from app.plan_approvals where run_id = %s", run),
            await self.rows.fetch("select * from app.mock_receipts where run_id = %s", run),
            await self.rows.fetch("select * from dbos.operation_outputs where workflow_uuid = %s order by function_id", wid),
            await self.rows.fetch("select status, output, error, claims from dbos.workflow_status where workflow_uuid = %s", wid),
        ]

    @staticmethod
    async def until(held: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not await held():
                await asyncio.sleep(0.01)


@pytest.fixture
async def stage(client: httpx.AsyncClient, rows: Rows, engine: Engine, tmp_path: Path) -> AsyncIterator[Stage]:
    async with engine.transaction() as conn:
        await import_bundle(conn, PATCHING)
        await import_bundle(conn, ASKING)
    stage = Stage(client, rows, tmp_path)
    configure(Ports(engine.pool, ReplayOpenCode(), stage.sandbox, tmp_path, Limits(plan_approval_timeout_s=600)))
    worker = engine.worker(workflows(), queues=QUEUES, version="test", poll_s=0.05)
    working = asyncio.create_task(worker.run())
    yield stage
    worker.stop()
    await working


# At the gate -------------------------------------------------------------------------------------------------------------


async def test_a_run_cancelled_at_its_gate_is_resumed_there_and_succeeds(stage: Stage) -> None:
    stage.sandbox.free.set()
    wid = await stage.start()
    await stage.at_gate(wid)
    assert stage.file.read_text() == "new"
    await stage.act("cancel", wid)
    assert await stage.header(wid) == ("CANCELLED", "canceled", "NONE")
    await stage.rolled_back()
    assert stage.file.read_text() == "old"
    refused = await stage.client.post(f"/api/runs/{wid}/gates/{stage.gate(wid)}/reply", json=YES)
    assert refused.status_code == 409
    await stage.act("resume", wid)
    assert await stage.header(wid) == ("WAITING_INPUT", "waiting_input", "APPROVE_PLAN")
    await stage.answer(wid)
    await stage.result(wid)
    assert await stage.header(wid) == ("SUCCESS", "succeeded", None)
    assert stage.file.read_text() == "new"
    assert len(stage.sandbox.entered) == 1
    audit = (await stage.client.get(f"/api/ops/wf/{wid}")).json()["audit"]
    assert [entry["op"] for entry in audit] == ["resume", "cancel"]


async def test_a_fork_made_at_the_gate_hears_the_answer_and_leaves_the_run_to_itself(stage: Stage) -> None:
    wid = await stage.start()
    await stage.at_gate(wid)
    before = await stage.record(wid)
    fork = await stage.fork(wid)
    await stage.at_gate(wid, fork)
    assert await stage.record(wid) == before
    await stage.answer(wid)
    await stage.in_sandbox(2)
    stage.sandbox.free.set()
    assert await stage.result(fork) == await stage.result(wid)
    assert await stage.header(wid) == ("SUCCESS", "succeeded", None)
    assert await stage.rows.value("select count(*) from app.human_interactions") == 1
    attempts = await stage.rows.fetch("select step_id, attempt from app.run_steps order by started_at")
    assert attempts == [("CompileST", 1), ("ApplyPatchST", 1), ("DecideST", 1), ("ExecuteST", 1)]
    assert await stage.rows.fetch("select seen_count from app.mock_receipts") == [(1,)]
    tried = await stage.rows.fetch("select task_key like %s, attempt from app.sbx_runs order by 1", f"%:{fork}")
    assert tried == [(False, 1), (True, 1)]
    assert stage.file.read_text() == "new"


async def test_a_no_ends_the_run_and_its_fork_and_takes_the_patches_back(stage: Stage) -> None:
    wid = await stage.start()
    await stage.at_gate(wid)
    fork = await stage.fork(wid)
    await stage.at_gate(wid, fork)
    await stage.answer(wid, YES | {"payload": {"choice": "no"}})
    for id in (wid, fork):
        with pytest.raises(WorkflowFailed, match="Plan approval failed"):
            await stage.result(id)
    await stage.rolled_back()
    assert stage.file.read_text() == "old"
    assert await stage.header(wid) == ("ERROR", "retries_exceeded", "REPAIR")


async def test_a_cancelled_fork_leaves_the_run_and_its_files_alone(stage: Stage) -> None:
    stage.sandbox.free.set()
    wid = await stage.start()
    await stage.at_gate(wid)
    fork = await stage.fork(wid, 1)
    await stage.at_gate(wid, fork)
    await stage.act("cancel", fork)
    await stage.rolled_back()
    assert stage.file.read_text() == "new"
    assert await stage.header(wid) == ("WAITING_INPUT", "waiting_input", "APPROVE_PLAN")
    await stage.answer(wid)
    await stage.result(wid)
    assert (await stage.client.get(f"/api/ops/wf/{fork}")).json()["status"] == "CANCELLED"
    assert await stage.rows.value("select intent_id from app.runs where workflow_id = %s", fork) == f"it-ops-{fork}"


async def test_the_last_one_that_ends_badly_takes_the_patches_back(stage: Stage) -> None:
    wid = await stage.start()
    await stage.at_gate(wid)
    fork = await stage.fork(wid)
    await stage.at_gate(wid, fork)
    await stage.act("cancel", wid)
    await stage.rolled_back()
    assert stage.file.read_text() == "new"
    await stage.act("cancel", fork)
    await stage.rolled_back()
    assert stage.file.read_text() == "old"


# In the sandbox ----------------------------------------------------------------------------------------------------------


async def test_a_run_cancelled_in_its_sandbox_takes_its_tasks_along_and_finishes_when_resumed(stage: Stage) -> None:
    wid = await stage.start()
    await stage.at_gate(wid)
    await stage.answer(wid)
    await stage.in_sandbox()
    await stage.act("cancel", wid)
    assert await stage.header(wid) == ("CANCELLED", "canceled", "NONE")
    children = "select status from dbos.workflow_status where parent_workflow_id = %s and name = 'ExecuteTask'"
    assert await stage.rows.fetch(children, wid) == [("CANCELLED",)]
    await stage.rolled_back()
    assert stage.file.read_text() == "old"
    await stage.until(stage.was_cut_off)
    await stage.act("resume", wid)
    assert (await stage.header(wid))[1] == "running"
    await stage.in_sandbox(2)
    stage.sandbox.free.set()
    await stage.result(wid)
    assert await stage.header(wid) == ("SUCCESS", "succeeded", None)
    assert stage.file.read_text() == "new"
    assert await stage.rows.fetch("select attempt, err_code from app.sbx_runs") == [(1, "NONE")]
    assert await stage.rows.fetch("select seen_count from app.mock_receipts") == [(1,)]


async def test_a_fork_made_in_the_sandbox_runs_its_own_task_and_outlives_the_run(stage: Stage) -> None:
    wid = await stage.start()
    await stage.at_gate(wid)
    await stage.answer(wid)
    await stage.in_sandbox()
    fork = await stage.fork(wid)
    await stage.in_sandbox(2)
    await stage.act("cancel", wid)
    await stage.rolled_back()
    before = await stage.record(wid)
    stage.sandbox.free.set()
    assert (await stage.result(fork))["status"] == "succeeded"
    assert await stage.record(wid) == before
    assert await stage.header(wid) == ("CANCELLED", "canceled", "NONE")
    assert stage.file.read_text() == "new"


async def test_a_fork_of_a_run_cancelled_in_its_sandbox_finishes_it(stage: Stage) -> None:
    wid = await stage.start()
    await stage.at_gate(wid)
    await stage.answer(wid)
    await stage.in_sandbox()
    await stage.act("cancel", wid)
    await stage.rolled_back()
    stage.sandbox.free.set()
    fork = await stage.fork(wid)
    assert (await stage.result(fork))["status"] == "succeeded"
    assert await stage.header(wid) == ("CANCELLED", "canceled", "NONE")
    assert stage.file.read_text() == "new"


async def test_a_run_goes_on_after_its_fork_has_finished_first(stage: Stage) -> None:
    stage.sandbox.free.set()
    wid = await stage.start()
    await stage.at_gate(wid)
    fork = await stage.fork(wid, 1)
    await stage.act("cancel", wid)
    await stage.rows.engine.send(fork, {"choice": "yes"}, topic=identity.human_topic(stage.gate(wid)))
    assert (await stage.result(fork))["status"] == "succeeded"
    await stage.act("resume", wid)
    await stage.answer(wid)
    assert (await stage.result(wid))["status"] == "succeeded"
    assert await stage.header(wid) == ("SUCCESS", "succeeded", None)


# After the end -----------------------------------------------------------------------------------------------------------


async def test_a_run_that_has_ended_can_be_forked_from_any_of_its_records(stage: Stage) -> None:
    stage.sandbox.free.set()
    wid = await stage.start()
    await stage.at_gate(wid)
    await stage.answer(wid)
    done = await stage.result(wid)
    before = await stage.record(wid)
    for op in ("cancel", "resume"):
        refused = await stage.client.post(f"/api/ops/wf/{wid}/{op}", json=WHO)
        assert (refused.status_code, refused.json()) == (409, {"error": f"cannot {op} workflow in status SUCCESS"})
    steps = (await stage.client.get(f"/api/ops/wf/{wid}/steps")).json()
    forks = [await stage.fork(wid, step["functionId"]) for step in steps]
    for fork in forks:
        assert await stage.result(fork) == done
    assert await stage.record(wid) == before
    assert stage.file.read_text() == "new"


async def test_a_fork_is_not_asked_what_its_run_was_asked(stage: Stage) -> None:
    stage.sandbox.free.set()
    wid = await stage.start(START_ASKING)
    question = identity.gate_key(identity.run_id(wid), "CompileST", "ask-user", 1)
    await stage.until(lambda: stage.waits(wid, f"t:human:{question}"))
    reply = {"payload": {"answer": "42"}, "dedupeKey": "answer", "origin": "manual"}
    assert (await stage.client.post(f"/api/runs/{wid}/gates/{question}/reply", json=reply)).status_code == 200
    await stage.at_gate(wid)
    await stage.answer(wid)
    done = await stage.result(wid)
    assert await stage.result(await stage.fork(wid, 1)) == done


# In the queue ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rows")
async def test_a_run_cancelled_in_its_queue_never_begins_until_it_is_resumed(
    client: httpx.AsyncClient, rows: Rows, engine: Engine, tmp_path: Path
) -> None:
    stage = Stage(client, rows, tmp_path)
    wid = await stage.start(START)
    await stage.act("cancel", wid)
    assert await stage.header(wid) == ("CANCELLED", "canceled", "NONE")
    assert (await client.get("/api/ops/queue-depth")).json() == []
    refused = await client.post(f"/api/ops/wf/{wid}/fork", json=WHO | {"stepN": 1})
    assert (refused.status_code, refused.json()) == (409, {"error": "fork stepN 1 exceeds max step 0"})
    await stage.act("resume", wid)
    assert await stage.header(wid) == ("ENQUEUED", "queued", None)
    [depth] = (await client.get("/api/ops/queue-depth")).json()
    assert (depth["queueName"], depth["workflowCount"]) == ("intentQ", 1)


async def test_a_backlog_drains_after_a_batch_of_cancels(
    client: httpx.AsyncClient, rows: Rows, engine: Engine, tmp_path: Path
) -> None:
    stage = Stage(client, rows, tmp_path)
    ids = [await backlogged(engine, number) for number in range(121)]
    [depth] = (await client.get("/api/ops/queue-depth")).json()
    assert depth["workflowCount"] == 121
    for wid in ids[:-1]:
        await stage.act("cancel", wid)
    [depth] = (await client.get("/api/ops/queue-depth")).json()
    assert depth["workflowCount"] == 1
    configure(Ports(engine.pool, ReplayOpenCode(), stage.sandbox, tmp_path))
    worker = engine.worker(workflows(), queues=QUEUES, version="test", poll_s=0.05)
    working = asyncio.create_task(worker.run())
    await stage.at_gate(ids[-1])
    worker.stop()
    await working
    counted = await rows.fetch("select status, count(*) from app.runs group by 1 order by 1")
    assert counted == [("canceled", 120), ("waiting_input", 1)]
    assert await rows.value("select count(*) from app.artifacts where step_id = 'OPS'") == 120


async def backlogged(engine: Engine, number: int) -> str:
    request = parse(RunStartRequest, START | {"formData": {"goal": f"goal {number}", "account": "a"}})
    return (await start_run(engine, request, QueueRules(), version="test")).run.workflow_id
