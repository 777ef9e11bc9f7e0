"""What a run shows: its status and why it stands still, its steps with their artifacts, its patches, its artifacts' contents."""

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from psycopg.types.json import Jsonb

from api.app import create_app
from api.config import Config
from api.views import merged_status
from engine import Engine
from steps import tracing
from steps.contracts.views import PatchRow, RunHeader, StepDetail, StepPage, StepRow
from steps.crashdemo import crash_demo
from tests.api.samples import GATE, RUN_ID, START, WID, Rows


@pytest.mark.parametrize(
    ("run", "workflow", "shown"),
    [
        ("queued", None, "ENQUEUED"),
        ("queued", "ENQUEUED", "ENQUEUED"),
        ("queued", "DELAYED", "ENQUEUED"),
        ("queued", "PENDING", "ENQUEUED"),
        ("queued", "RUNNING", "PENDING"),
        ("running", "ENQUEUED", "PENDING"),
        ("running", "SUCCESS", "SUCCESS"),
        ("running", "ERROR", "ERROR"),
        ("waiting_input", "PENDING", "WAITING_INPUT"),
        ("waiting_input", "CANCELLED", "CANCELLED"),
        ("waiting_input", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "ERROR"),
        ("succeeded", "ERROR", "SUCCESS"),
        ("retries_exceeded", "SUCCESS", "ERROR"),
        ("canceled", "SUCCESS", "CANCELLED"),
        ("repairing", "ERROR", "PENDING"),
        ("something else", None, "ERROR"),
        ("running", "something else", "PENDING"),
    ],
)
def test_the_further_status_is_shown(run: str, workflow: str | None, shown: str) -> None:
    assert merged_status(run, workflow) == shown


async def test_a_header_shows_the_error_only_when_there_is_one(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("running")
    assert "error" not in (await client.get(f"/api/runs/{WID}")).json()
    await rows.fetch("update app.runs set error = 'it broke', status = 'retries_exceeded', next_action = 'REPAIR'")
    header = (await client.get(f"/api/runs/{WID}")).json()
    assert (header["error"], header["status"], header["nextAction"]) == (
        {"message": "it broke"},
        "ERROR",
        "REPAIR",
    )
    assert (header["durableStatus"], header["recipeRef"]) == ("retries_exceeded", None)


async def add_worker(rows: Rows, version: str | None = "v1", *, lease_s: int = 60, dead: bool = False, id: str = "w") -> None:
    await rows.fetch(
        "insert into engine.worker values (%s, engine.now_ms() + %s, 0, %s, %s, 'here')", id, lease_s * 1000, dead, version
    )


async def place(rows: Rows, status: str, **columns: object) -> None:
    """Put the workflow where it is to be."""
    await rows.fetch(
        """update dbos.workflow_status
              set status = %s, application_version = %s, waits = %s::text[], wake_at_ms = %s, executor_id = %s, updated_at = 1000,
                  delay_until_epoch_ms = %s""",
        status,
        columns.get("version"),
        columns.get("waits"),
        columns.get("wake_at_ms"),
        columns.get("executor_id"),
        columns.get("delay_until_ms"),
    )


async def reason_shown(client: httpx.AsyncClient) -> dict[str, Any] | None:
    response = await client.get(f"/api/runs/{WID}")
    return RunHeader.model_validate(response.json()).document().get("reason")


async def test_a_header_tells_what_the_run_is_about_and_where_it_is_queued(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await rows.fetch("update app.runs set queue_partition_key = 'tenant-1'")
    header = (await client.get(f"/api/runs/{RUN_ID}")).json()
    assert [header[name] for name in ("runId", "subject", "queue", "priority", "queuePartitionKey", "retryCount", "spanId")] == [
        RUN_ID,
        "sample",
        "intentQ",
        0,
        "tenant-1",
        0,
        None,
    ]


async def test_a_link_to_traces_is_shown_where_one_is_configured(engine: Engine, database: str, rows: Rows) -> None:
    await rows.run()
    link = "https://traces.example/{traceId}"
    app = create_app(engine, Config(database_url=database, trace_base_url=link))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front-door") as client:
        assert (await client.get(f"/api/runs/{WID}")).json()["traceBaseUrl"] == link


@pytest.mark.parametrize(
    ("workers", "version", "code", "said"),
    [
        ([], "v1", "no-worker", "no worker is alive"),
        (["v2", "v3"], "v1", "no-worker", "no live worker has application version v1; those alive have v2, v3"),
        ([None], "v1", "no-worker", "those alive have none"),
        (["v2", "v1"], "v1", "queued", "is queued in intentQ"),
        (["v2"], None, "queued", "is queued in intentQ"),
    ],
)
async def test_a_queued_run_says_whether_anybody_will_take_it(
    client: httpx.AsyncClient, rows: Rows, workers: list[str | None], version: str | None, code: str, said: str
) -> None:
    await rows.run("queued", workflow_status="ENQUEUED")
    await place(rows, "ENQUEUED", version=version)
    for index, one in enumerate(workers):
        await add_worker(rows, one, id=f"w{index}")
    reason = await reason_shown(client)
    assert reason is not None
    assert (reason["code"], reason["since"]) == (code, 1000)
    assert said in reason["sentence"]


async def test_a_run_left_behind_by_workers_of_another_version_names_them(
    client: httpx.AsyncClient, engine: Engine, rows: Rows
) -> None:
    worker = engine.worker([crash_demo], queues={"intentQ": 1}, version="v9")
    working = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(20):
            while not await rows.value("select count(*) from engine.worker"):
                await asyncio.sleep(0.01)
        wid = (await client.post("/api/run", json=START)).json()["workflowID"]
        header = (await client.get(f"/api/runs/{wid}")).json()
    finally:
        worker.stop()
        await working
    assert (header["status"], header["workflowVersion"], header["reason"]["code"]) == ("ENQUEUED", "test", "no-worker")
    assert header["reason"]["sentence"] == "no live worker has application version test; those alive have v9"


@pytest.mark.parametrize(("lease_s", "dead"), [(-1, False), (60, True)])
async def test_a_worker_that_is_dead_or_late_is_none(client: httpx.AsyncClient, rows: Rows, lease_s: int, dead: bool) -> None:
    await rows.run(workflow_status="ENQUEUED")
    await add_worker(rows, lease_s=lease_s, dead=dead)
    await place(rows, "PENDING", executor_id="w")
    assert (await reason_shown(client) or {})["code"] == "no-worker"
    await add_worker(rows, id="another")
    assert (await reason_shown(client) or {})["code"] == "worker-lost"
    await place(rows, "PENDING", executor_id="another")
    assert await reason_shown(client) is None


@pytest.mark.parametrize(
    ("waits", "more", "expected"),
    [
        (["c:other", f"t:human:{GATE}"], {"wake_at_ms": 9000}, {"code": "person", "gateKey": GATE, "until": 9000}),
        (["t:human:a", "t:human:b"], {}, {"code": "person", "sentence": "waits for a person at 2 gates", "gateKey": "a"}),
        (["t:sys:news"], {}, {"code": "message", "sentence": "waits for a message of topic sys:news"}),
        (["c:child-1"], {}, {"code": "child", "sentence": "waits for the end of workflow child-1", "workflowID": "child-1"}),
        (["c:child-1", "c:child-2"], {}, {"code": "child", "sentence": "waits for the end of 2 workflows"}),
        (["e:other\x1ckey"], {}, {"code": "event"}),
        ([], {"wake_at_ms": 9000}, {"code": "timer", "until": 9000}),
    ],
)
async def test_a_parked_run_says_what_it_waits_for(
    client: httpx.AsyncClient, rows: Rows, waits: list[str], more: dict[str, int], expected: dict[str, Any]
) -> None:
    await rows.run("waiting_input")
    await add_worker(rows)
    await place(rows, "PENDING", waits=waits, version="v1", **more)
    reason = await reason_shown(client)
    assert reason is not None
    assert expected.items() <= reason.items()
    assert reason["since"] == 1000


async def test_a_run_whose_question_was_answered_waits_for_a_worker_only(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("waiting_input")
    await place(rows, "PENDING", waits=[f"t:human:{GATE}"])
    await rows.engine.send(WID, {"choice": "yes"}, topic=f"human:{GATE}")
    assert (await reason_shown(client) or {})["code"] == "no-worker"
    await add_worker(rows)
    assert (await reason_shown(client) or {})["code"] == "queued"


async def test_a_run_without_a_worker_waits_for_its_children_in_vain(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await place(rows, "PENDING", waits=["c:child-1"])
    assert (await reason_shown(client) or {})["code"] == "no-worker"


async def test_a_delayed_run_says_until_when(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("queued")
    await place(rows, "DELAYED", delay_until_ms=5000)
    reason = await reason_shown(client)
    assert reason is not None
    assert (reason["code"], reason["until"]) == ("delayed", 5000)


async def test_a_run_that_the_engine_does_not_know_says_so_and_one_that_has_ended_says_nothing(
    client: httpx.AsyncClient, rows: Rows
) -> None:
    await rows.run("queued")
    await rows.fetch("delete from dbos.workflow_status")
    assert (await reason_shown(client) or {})["code"] == "no-workflow"
    await rows.fetch("update app.runs set status = 'canceled'")
    assert await reason_shown(client) is None


async def add_step(rows: Rows, step_id: str, phase: str, *, attempt: int = 1, at_s: int = 1) -> None:
    await rows.fetch(
        """insert into app.run_steps (run_id, step_id, attempt, phase, output, started_at, finished_at)
           values (%s, %s, %s, %s, %s, to_timestamp(%s), to_timestamp(%s))""",
        RUN_ID,
        step_id,
        attempt,
        phase,
        Jsonb({"attempt": attempt}),
        at_s,
        at_s + 1,
    )


async def add_artifact(
    rows: Rows, step_id: str, kind: str, inline: Any, *, idx: int = 0, attempt: int = 1, task: str = ""
) -> str:
    uri = f"artifact://run/{RUN_ID}/step/{step_id}/task/{task}/{kind}-{idx}"
    await rows.fetch(
        """insert into app.artifacts (run_id, step_id, task_key, idx, attempt, kind, uri, inline, sha256)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        RUN_ID,
        step_id,
        task,
        idx,
        attempt,
        kind,
        uri,
        None if inline is None else Jsonb(inline),
        "0" * 64,
    )
    return uri


async def test_a_step_is_shown_by_its_latest_attempt_and_that_attempts_artifacts(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await add_step(rows, "CompileST", "compilation", at_s=1)
    await add_step(rows, "ExecuteST", "execution", attempt=1, at_s=3)
    await add_step(rows, "ExecuteST", "execution", attempt=2, at_s=5)
    plan = await add_artifact(rows, "CompileST", "plan_card", {"json": {"goal": "g"}})
    await add_artifact(rows, "ExecuteST", "text", {"text": "old"}, attempt=1)
    log = await add_artifact(rows, "ExecuteST", "text", {"text": "new ✓"}, attempt=2, task="t")
    steps = [StepRow.model_validate(row) for row in (await client.get(f"/api/runs/{WID}/steps")).json()]
    assert [(row.stepID, row.name, row.attempt, row.startedAt, row.endedAt) for row in steps] == [
        ("CompileST", "compilation", 1, 1_000, 2_000),
        ("ExecuteST", "execution", 2, 5_000, 6_000),
    ]
    refs = [[(ref.id, ref.kind, ref.mime, ref.size) for ref in row.artifactRefs] for row in steps]
    assert refs == [
        [(plan, "plan_card", "application/json", len('{"goal": "g"}'))],
        [(log, "text", "text/plain", len("new ✓".encode()))],
    ]


async def test_a_step_that_failed_is_shown_with_its_recorded_error(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await add_step(rows, "CompileST", "compilation")
    await rows.fetch(
        """insert into dbos.operation_outputs
                  (workflow_uuid, function_id, function_name, error, started_at_epoch_ms, completed_at_epoch_ms)
           values (%s, 1, 'CompileST', null, 1000, 2000), (%s, 2, 'DecideST', %s, 3000, 4000),
                  (%s, 3, 'DBOS.sleep', null, 3000, 4000)""",
        WID,
        WID,
        orjson.dumps({"name": "Denied", "message": "no"}).decode(),
        WID,
    )
    steps = (await client.get(f"/api/runs/{WID}/steps")).json()
    assert [row["stepID"] for row in steps] == ["CompileST", "DecideST"]
    assert steps[1]["error"] == {"name": "Denied", "message": "no"}
    assert (steps[1]["name"], steps[1]["attempt"], steps[1]["endedAt"]) == ("planning", 1, 4000)


async def add_child(rows: Rows, id: str, status: str, **columns: object) -> None:
    await rows.fetch(
        """insert into dbos.workflow_status (workflow_uuid, status, name, parent_workflow_id, created_at, started_at_epoch_ms,
                                             completed_at, executor_id, error, inputs, output, serialization)
           values (%s, %s, 'ExecuteTask', %s, 10000, %s, %s, %s, %s, '{"positionalArgs":[1],"namedArgs":{}}', '{"done":true}',
                   'portable_json')""",
        id,
        status,
        WID,
        columns.get("started"),
        columns.get("completed"),
        columns.get("worker"),
        columns.get("error"),
    )


async def record(rows: Rows, number: int, name: str, *, child: str | None = None, error: str | None = None) -> None:
    await rows.fetch(
        """insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, output, error, child_workflow_id,
                                               serialization, started_at_epoch_ms, completed_at_epoch_ms)
           values (%s, %s, %s, '"out"', %s, %s, 'portable_json', 3000, 4000)""",
        WID,
        number,
        name,
        error,
        child,
    )


async def everything(rows: Rows) -> None:
    """A run with a bit of all that it can do."""
    await rows.run("waiting_input")
    await add_step(rows, "CompileST", "compilation", at_s=1)
    await record(rows, 1, "CompileST")
    await record(rows, 2, "openGate")
    await rows.gate()
    await rows.fetch("update app.human_gates set created_at = to_timestamp(5)")
    await rows.fetch("insert into dbos.workflow_events_history values (%s, 3, %s, '{}')", WID, f"ui:{GATE}")
    await add_child(rows, "task-1", "SUCCESS", started=11_000, completed=12_000, worker="w")
    await add_child(rows, "task-2", "PENDING", started=13_000, worker="w")
    await record(rows, 4, "ExecuteTask", child="task-1")
    await record(rows, 5, "ExecuteTask", child="task-2")
    await record(rows, 6, "DBOS.getResult", child="task-1")
    await add_step(rows, "ExecuteST", "execution", at_s=20)
    await add_artifact(rows, "ExecuteST", "log", {"text": "of a task"}, task="task-1", idx=1)
    await add_artifact(rows, "ExecuteST", "log", {"text": "of the step"}, idx=2)


async def test_a_sandbox_task_says_what_it_was_told_and_how_its_attempts_ended(client: httpx.AsyncClient, rows: Rows) -> None:
    await everything(rows)
    await rows.fetch(
        """insert into app.sbx_runs (run_id, step_id, task_key, attempt, provider, request, err_code, metrics, created_at, updated_at)
           values (%s, 'ExecuteST', 'task-1', 1, 'mock', '{"cmd": "pytest -q"}', 'BOOT_FAIL', null,
                   to_timestamp(1), to_timestamp(3)),
                  (%s, 'ExecuteST', 'task-1', 2, 'mock', '{"cmd": "pytest -q"}', 'NONE', '{"wallMs": 12.5}',
                   to_timestamp(5), to_timestamp(9))""",
        RUN_ID,
        RUN_ID,
    )
    page = (await client.get(f"/api/runs/{WID}/steps?limit=100")).json()
    told = {row["stepID"]: (row.get("title"), row.get("attempts")) for row in page["steps"]}
    title, attempts = told["task-1"]
    times = [(attempt.pop("startedAt"), attempt.pop("endedAt")) for attempt in attempts]
    assert times == [(1000, 3000), (5000, 9000)]
    assert (title, attempts) == (
        "pytest -q",
        [{"attempt": 1, "errCode": "BOOT_FAIL"}, {"attempt": 2, "errCode": "NONE", "wallMs": 12.5}],
    )
    assert {told[other] for other in told if other != "task-1"} == {(None, None)}
    alone = (await client.get(f"/api/runs/{WID}/steps/task-1")).json()
    assert (alone["title"], len(alone["attempts"])) == ("pytest -q", 2)


async def test_a_page_shows_all_that_a_run_did_in_order(client: httpx.AsyncClient, rows: Rows) -> None:
    await everything(rows)
    page = StepPage.model_validate((await client.get(f"/api/runs/{WID}/steps?limit=100")).json())
    assert [(row.kind, row.stepID, row.status, row.seq) for row in page.steps] == [
        ("step", "CompileST", "SUCCESS", 1),
        ("call", "openGate", "SUCCESS", 2),
        ("gate", GATE, "WAITING", 3),
        ("child", "task-1", "SUCCESS", 6),
        ("child", "task-2", "RUNNING", 5),
        ("step", "ExecuteST", "SUCCESS", None),
    ]
    assert (page.total, page.cursor) == (6, "0.6")
    task = page.steps[3]
    assert (task.name, task.queuedAt, task.startedAt, task.endedAt, task.worker, task.parent) == (
        "ExecuteTask",
        10_000,
        11_000,
        12_000,
        "w",
        WID,
    )
    assert [[ref.size for ref in row.artifactRefs] for row in page.steps[3:]] == [[9], [], [11]]
    plain = (await client.get(f"/api/runs/{WID}/steps")).json()
    assert [(row["stepID"], len(row["artifactRefs"])) for row in plain] == [("CompileST", 0), ("ExecuteST", 2)]


@pytest.mark.parametrize("given", [None, "po-demo", "0af7651916cd43dd8448eb211c80319c"])
async def test_every_row_belongs_to_the_trace_of_the_run(client: httpx.AsyncClient, rows: Rows, given: str | None) -> None:
    await everything(rows)
    await rows.fetch("update app.runs set trace_id = %s", given)
    page = (await client.get(f"/api/runs/{WID}/steps?limit=100")).json()
    assert {row["traceId"] for row in page["steps"]} == {tracing.trace_id(WID, given)}
    assert (await client.get(f"/api/runs/{WID}/steps/{GATE}")).json()["traceId"] == tracing.trace_id(WID, given)
    assert (await client.get(f"/api/runs/{WID}")).json()["traceId"] == given


async def test_calls_in_a_row_stand_in_a_row_though_a_step_knows_its_start_by_another_clock(
    client: httpx.AsyncClient, rows: Rows
) -> None:
    await rows.run()
    await add_step(rows, "ApplyPatchST", "patching", at_s=4)
    await record(rows, 1, "ApplyPatchST")
    await record(rows, 2, "openGate")  # both began at 3000 by the worker's clock
    page = (await client.get(f"/api/runs/{WID}/steps?limit=100")).json()
    assert [(row["stepID"], row["startedAt"]) for row in page["steps"]] == [("ApplyPatchST", 4000), ("openGate", 3000)]


async def test_a_child_without_a_name_is_shown_under_its_id(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await add_child(rows, "nameless", "ENQUEUED")
    await rows.fetch("update dbos.workflow_status set name = null, status = null where workflow_uuid = 'nameless'")
    page = (await client.get(f"/api/runs/{WID}/steps?limit=100")).json()
    assert [(row["stepID"], row["name"], row["status"]) for row in page["steps"]] == [("nameless", "nameless", "ERROR")]


async def test_pages_together_are_the_whole(client: httpx.AsyncClient, rows: Rows) -> None:
    await everything(rows)
    whole = (await client.get(f"/api/runs/{WID}/steps?offset=0")).json()
    parts = [(await client.get(f"/api/runs/{WID}/steps?offset={offset}&limit=2")).json() for offset in (0, 2, 4, 6)]
    assert [row for part in parts for row in part["steps"]] == whole["steps"]
    assert {part["total"] for part in parts} == {6}
    assert (await client.get(f"/api/runs/{WID}/steps?limit=0")).status_code == 400
    assert (await client.get("/api/runs/nobody/steps")).status_code == 404


async def test_a_step_and_a_child_show_what_went_in_and_what_came_out(client: httpx.AsyncClient, rows: Rows) -> None:
    await everything(rows)
    await rows.fetch(
        "insert into app.opencode_calls (id, run_id, step_id, request, response) values ('c', %s, 'CompileST', '{\"ask\":1}', '{}')",
        RUN_ID,
    )
    step = StepDetail.model_validate((await client.get(f"/api/runs/{WID}/steps/CompileST")).json())
    assert (step.stepID, step.input, step.output) == ("CompileST", {"ask": 1}, {"attempt": 1})
    child = StepDetail.model_validate((await client.get(f"/api/runs/{WID}/steps/task-1")).json())
    assert (child.kind, child.input["positionalArgs"], child.output) == ("child", [1], {"done": True})
    call = StepDetail.model_validate((await client.get(f"/api/runs/{WID}/steps/openGate")).json())
    assert (call.kind, call.input, call.output) == ("call", None, "out")
    assert (await client.get(f"/api/runs/{WID}/steps/nothing")).status_code == 404


async def test_a_step_whose_command_failed_and_a_task_that_failed_are_shown_as_errors(
    client: httpx.AsyncClient, rows: Rows
) -> None:
    await rows.run()
    await add_step(rows, "ExecuteST", "execution")
    await rows.fetch('update app.run_steps set output = output || \'{"errCode": "CMD_NONZERO"}\'')
    await add_child(rows, "task-1", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", error="not JSON")
    page = (await client.get(f"/api/runs/{WID}/steps?limit=10")).json()
    assert [(row["status"], row.get("error")) for row in page["steps"]] == [("ERROR", None), ("ERROR", {"message": "not JSON"})]


async def test_a_blocked_budget_stands_among_the_steps(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    blocked = {"kind": "budget", "metric": "maxFanout", "outcome": "blocked"}
    uri = await add_artifact(rows, "BUDGET", "json_diagnostic", {"json": blocked}, task="maxFanout")
    await add_artifact(rows, "OPS", "json_diagnostic", {"op": "cancel"})
    steps = (await client.get(f"/api/runs/{WID}/steps")).json()
    assert [(row["stepID"], [ref["id"] for ref in row["artifactRefs"]]) for row in steps] == [("BUDGET", [uri])]


@pytest.mark.parametrize(
    ("kind", "inline", "content", "mime"),
    [
        ("json", {"json": [1, 2]}, b"[1,2]", "application/json"),
        ("raw", {"json": None}, b"null", "application/json"),
        ("text", {"text": "OK: test\n"}, b"OK: test\n", "text/plain; charset=utf-8"),
        ("patch", {"text": "--- a"}, b"--- a", "text/plain; charset=utf-8"),
        ("svg", {"text": "<svg/>"}, b"<svg/>", "image/svg+xml"),
        ("json_diagnostic", {"op": "cancel"}, b'{"op":"cancel"}', "application/json"),
    ],
)
async def test_an_artifact_is_served_out_of_its_envelope(
    client: httpx.AsyncClient, rows: Rows, kind: str, inline: Any, content: bytes, mime: str
) -> None:
    await rows.run()
    uri = await add_artifact(rows, "CompileST", kind, inline)
    response = await client.get(f"/api/artifacts/{quote(uri, safe='')}")
    assert (response.status_code, response.content, response.headers["content-type"]) == (200, content, mime)


async def test_an_artifact_can_not_script(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    image = await add_artifact(rows, "CompileST", "svg", {"text": "<svg><script>alert(1)</script></svg>"})
    page = await add_artifact(rows, "CompileST", "file", {"text": "<script>alert(1)</script>"}, idx=1)
    served = [(await client.get(f"/api/artifacts/{quote(uri, safe='')}")).headers for uri in (image, page)]
    assert [headers["content-disposition"] for headers in served] == ["attachment; filename*=UTF-8''svg-0", "inline"]
    assert {headers["content-security-policy"] for headers in served} == {"sandbox; default-src 'none'"}
    assert {headers["x-content-type-options"] for headers in served} == {"nosniff"}


async def test_an_artifact_without_content_is_described(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    uri = await add_artifact(rows, "CompileST", "text", None)
    described = (await client.get(f"/api/artifacts/{quote(uri, safe='')}")).json()
    assert (described["id"], described["mime"], described["sha256"]) == (uri, "text/plain", "0" * 64)


async def test_the_latest_attempt_of_an_artifact_is_served(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    for attempt in (2, 1):
        uri = await add_artifact(rows, "CompileST", "text", {"text": f"attempt {attempt}"}, attempt=attempt)
    assert (await client.get(f"/api/artifacts/{quote(uri, safe='')}")).text == "attempt 2"


async def test_an_unknown_artifact_is_not_found(client: httpx.AsyncClient) -> None:
    response = await client.get(f"/api/artifacts/{quote('artifact://run/r/step/s/task//x', safe='')}")
    assert (response.status_code, response.json()) == (404, {"error": "artifact not found"})


async def test_patches_are_listed_in_their_order(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    for index in (1, 0):
        await rows.fetch(
            """insert into app.patch_history (run_id, step_id, patch_index, target_path, preimage_hash, postimage_hash,
                                              diff_hash, preimage_content, postimage_content, applied_at)
               values (%s, 'ApplyPatchST', %s, 'a.txt', %s, %s, %s, '', 'x', case when %s = 0 then to_timestamp(1) end)""",
            RUN_ID,
            index,
            "a" * 64,
            "b" * 64,
            "c" * 64,
            index,
        )
    patches = (await client.get(f"/api/runs/{WID}/steps/ApplyPatchST/patches")).json()
    assert [(row["patchIndex"], row["appliedAt"], row["rolledBackAt"]) for row in patches] == [
        (0, 1000, None),
        (1, None, None),
    ]
    assert (await client.get(f"/api/runs/{WID}/steps/CompileST/patches")).json() == []


async def test_the_patches_of_a_whole_run_show_what_they_change(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    for index, (path, existed, before, after) in enumerate(
        [
            ("new.txt", False, "", "one\ntwo\n"),
            ("old.txt", True, "a\nb", "a\nc"),
            ("huge.txt", True, "x" * 150_000, "y" * 150_000),
        ]
    ):
        await rows.fetch(
            """insert into app.patch_history (run_id, step_id, patch_index, target_path, preimage_hash, postimage_hash, diff_hash,
                                              preimage_content, postimage_content, preimage_existed)
               values (%s, 'ApplyPatchST', %s, %s, '', '', '', %s, %s, %s)""",
            RUN_ID,
            index,
            path,
            before,
            after,
            existed,
        )
    patches = [PatchRow.model_validate(row) for row in (await client.get(f"/api/runs/{WID}/patches")).json()]
    assert [(row.stepID, row.targetPath) for row in patches] == [
        ("ApplyPatchST", name) for name in ("new.txt", "old.txt", "huge.txt")
    ]
    assert [row.diff for row in patches] == [
        "--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1,2 @@\n+one\n+two\n",
        "--- a/old.txt\n+++ b/old.txt\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n\\ No newline at end of file\n",
        None,
    ]
    assert (await client.get("/api/runs/nobody/patches")).status_code == 404
