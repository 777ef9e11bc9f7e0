"""The operators' routes: what they show, what they allow in which state, and what they write down."""

import asyncio
from typing import Any

import httpx
import pytest

from engine import Engine, Rate
from steps.canonical import sha256_json
from steps.contracts.queues import QueueView, RateLimit
from steps.identity import run_id
from tests.api.samples import WID, Rows

WHO: dict[str, Any] = {"actor": "ada", "reason": "drill"}
STATES = ("ENQUEUED", "DELAYED", "PENDING", "SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


async def made(rows: Rows, id: str, status: str = "PENDING", **columns: Any) -> str:
    """A workflow that is no run; class_name, queue and created_at may be given."""
    await rows.fetch(
        """insert into dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name, created_at, serialization)
           values (%s, %s, %s, %s, %s, %s, 'portable_json')""",
        id,
        status,
        columns.get("name", "Chore"),
        columns.get("class_name"),
        columns.get("queue", "controlQ"),
        columns.get("created_at", 1000),
    )
    return id


async def step(rows: Rows, id: str, number: int, name: str = "s", error: str | None = None) -> None:
    await rows.fetch(
        """insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, output, error, started_at_epoch_ms,
                                               completed_at_epoch_ms, call_path)
           values (%s, %s, %s, 'null', %s, 10, 20, %s)""",
        id,
        number,
        name,
        error,
        str(number),
    )


async def status_of(rows: Rows, id: str) -> str:
    return await rows.value("select status from dbos.workflow_status where workflow_uuid = %s", id)


async def actions(rows: Rows) -> list[dict[str, Any]]:
    return [row[0] for row in await rows.fetch("select inline from app.artifacts where step_id = 'OPS' order by created_at")]


# Lists -------------------------------------------------------------------------------------------------------------------


async def test_workflows_are_listed_newest_first(client: httpx.AsyncClient, rows: Rows) -> None:
    for id, at in (("b", 2000), ("c", 1000), ("a", 1000)):
        await made(rows, id, created_at=at)
    listed = (await client.get("/api/ops/wf")).json()
    assert [row["workflowID"] for row in listed] == ["b", "a", "c"]
    assert listed[1] | {"updatedAt": 0} == {
        "workflowID": "a",
        "status": "PENDING",
        "workflowName": "Chore",
        "workflowClassName": "Chore",
        "queueName": "controlQ",
        "createdAt": 1000,
        "updatedAt": 0,
    }


async def test_a_list_is_filtered_and_bounded(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    for number in range(25):
        await made(rows, f"w{number:02}", "ERROR" if number % 2 else "SUCCESS", name="7", created_at=number)

    async def listed(query: str) -> list[str]:
        return [row["workflowID"] for row in (await client.get(f"/api/ops/wf?{query}")).json()]

    assert len(await listed("")) == 20
    assert await listed("status=ERROR&limit=2") == ["w23", "w21"]
    assert await listed("name=RunIntent") == [WID]
    assert await listed("name=7&limit=1") == ["w24"]
    assert await listed("status=CANCELLED") == []


@pytest.mark.parametrize(
    ("name", "class_name", "shown"),
    [
        ("n", "c", ("n", "c")),
        ("n", " ", ("n", "n")),
        ("", "c", ("c", "c")),
        (None, None, ("blank", "blank")),
    ],
)
async def test_a_workflow_without_a_name_is_shown_under_what_it_has(
    client: httpx.AsyncClient, rows: Rows, name: str | None, class_name: str | None, shown: tuple[str, str]
) -> None:
    await made(rows, "blank", name=name, class_name=class_name)
    found = (await client.get("/api/ops/wf/blank")).json()
    assert (found["workflowName"], found["workflowClassName"]) == shown


async def test_a_query_that_means_nothing_is_refused(client: httpx.AsyncClient) -> None:
    for query in ("unknown=1", "status=RUNNING", "limit=0", "limit=201", "limit=x", "limit=", "limit=1.5"):
        response = await client.get(f"/api/ops/wf?{query}")
        assert response.status_code == 400, query
        assert response.json()["error"].startswith("invalid ListWorkflowsQuery: data")


# One workflow --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/ops/wf/nope", "/api/ops/wf/nope/steps"])
async def test_an_unknown_workflow_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()) == (404, {"error": "workflow not found: nope"})


async def test_looking_writes_nothing(client: httpx.AsyncClient, rows: Rows) -> None:
    await made(rows, "w")
    before = await rows.counts()
    assert (await client.get("/api/ops/wf/w")).json()["audit"] == []
    assert (await client.get("/api/ops/wf/w/steps")).json() == []
    assert await rows.counts() == before


async def test_steps_are_the_journal_in_order(client: httpx.AsyncClient, rows: Rows) -> None:
    await made(rows, "w")
    await step(rows, "w", 2, "second", '{"name": "OSError", "message": "no disk"}')
    await step(rows, "w", 1, "first")
    await step(rows, "w", 3, "third", "gASV")
    await rows.fetch("update dbos.operation_outputs set completed_at_epoch_ms = null where function_id = 1")
    assert (await client.get("/api/ops/wf/w/steps")).json() == [
        {"stepId": "first", "functionId": 1, "status": "PENDING", "startedAt": 10},
        {
            "stepId": "second",
            "functionId": 2,
            "status": "ERROR",
            "startedAt": 10,
            "completedAt": 20,
            "error": {"name": "OSError", "message": "no disk"},
        },
        {
            "stepId": "third",
            "functionId": 3,
            "status": "ERROR",
            "startedAt": 10,
            "completedAt": 20,
            "error": {"message": "gASV"},
        },
    ]


# What is legal -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "legal", "after"),
    [("cancel", {"ENQUEUED", "DELAYED", "PENDING"}, "CANCELLED"), ("resume", {"CANCELLED", "ENQUEUED"}, "ENQUEUED")],
)
async def test_an_action_is_legal_in_some_states_and_refused_in_the_others(
    client: httpx.AsyncClient, rows: Rows, op: str, legal: set[str], after: str
) -> None:
    for status in STATES:
        wid = await made(rows, f"was {status}", status)
        before = await rows.counts()
        response = await client.post(f"/api/ops/wf/{wid}/{op}", json=WHO)
        if status in legal:
            assert (response.status_code, response.json()) == (202, {"accepted": True, "workflowID": wid})
            assert await status_of(rows, wid) == after
        else:
            assert (response.status_code, response.json()) == (409, {"error": f"cannot {op} workflow in status {status}"})
            assert await rows.counts() == before
            assert await status_of(rows, wid) == status


async def test_a_fork_may_begin_at_any_step_that_was_reached_in_any_state(client: httpx.AsyncClient, rows: Rows) -> None:
    for status in STATES:
        wid = await made(rows, f"was {status}", status)
        await step(rows, wid, 1)
        await step(rows, wid, 2)
        refused = await client.post(f"/api/ops/wf/{wid}/fork", json=WHO | {"stepN": 3})
        assert (refused.status_code, refused.json()) == (409, {"error": "fork stepN 3 exceeds max step 2"})
        response = await client.post(f"/api/ops/wf/{wid}/fork", json=WHO | {"stepN": 2, "appVersion": None})
        fork = response.json()["forkedWorkflowID"]
        assert (response.status_code, response.json()) == (202, {"accepted": True, "workflowID": wid, "forkedWorkflowID": fork})
        assert (await status_of(rows, wid), await status_of(rows, fork)) == (status, "ENQUEUED")
        assert await rows.fetch("select function_id from dbos.operation_outputs where workflow_uuid = %s", fork) == [(1,)]


async def test_a_fork_may_be_for_another_application_version(client: httpx.AsyncClient, rows: Rows) -> None:
    await made(rows, "w", "SUCCESS")
    await step(rows, "w", 1)
    fork = (await client.post("/api/ops/wf/w/fork", json=WHO | {"stepN": 1, "appVersion": "v2"})).json()["forkedWorkflowID"]
    assert (await client.get(f"/api/ops/wf/{fork}")).json()["applicationVersion"] == "v2"


NOT_SAID: list[dict[str, Any]] = [
    {},
    {"actor": "ada"},
    {"reason": "drill"},
    WHO | {"actor": ""},
    WHO | {"reason": " \t"},
    WHO | {"actor": 7},
    WHO | {"more": 1},
    WHO | {"reason": "nul\x00"},
]


@pytest.mark.parametrize("op", ["cancel", "resume", "fork"])
async def test_an_action_without_actor_and_reason_is_refused_before_anything_else(
    client: httpx.AsyncClient, rows: Rows, op: str
) -> None:
    before = await rows.counts()
    more = {"stepN": 1} if op == "fork" else {}
    for body in (*(body | more for body in NOT_SAID), []):
        response = await client.post(f"/api/ops/wf/nope/{op}", json=body)
        assert response.status_code == 400, body
        assert response.json()["error"].startswith(f"invalid {op.capitalize()}WorkflowRequest: data")
    assert await rows.counts() == before


async def test_a_fork_without_a_step_is_refused(client: httpx.AsyncClient, rows: Rows) -> None:
    more: list[dict[str, Any]] = [
        {},
        {"stepN": 0},
        {"stepN": "1"},
        {"stepN": 1.5},
        {"stepN": None},
        {"stepN": 1, "appVersion": ""},
    ]
    for wrong in more:
        assert (await client.post("/api/ops/wf/nope/fork", json=WHO | wrong)).status_code == 400, wrong


@pytest.mark.parametrize("op", ["cancel", "resume", "fork"])
async def test_an_action_on_an_unknown_workflow_is_not_found(client: httpx.AsyncClient, rows: Rows, op: str) -> None:
    before = await rows.counts()
    response = await client.post(f"/api/ops/wf/nope/{op}", json=WHO | ({"stepN": 1} if op == "fork" else {}))
    assert (response.status_code, response.json()) == (404, {"error": "workflow not found: nope"})
    assert await rows.counts() == before


# The audit -----------------------------------------------------------------------------------------------------------------


async def test_every_action_is_shown_newest_first(client: httpx.AsyncClient, rows: Rows) -> None:
    wid = await rows.run()
    await step(rows, wid, 1)
    await client.post(f"/api/ops/wf/{wid}/cancel", json=WHO)
    await client.post(f"/api/ops/wf/{wid}/resume", json=WHO | {"reason": "go on"})
    fork = (await client.post(f"/api/ops/wf/{wid}/fork", json=WHO | {"stepN": 1})).json()["forkedWorkflowID"]
    audit = (await client.get(f"/api/ops/wf/{wid}")).json()["audit"]
    assert [(entry.pop("at")[-1], entry) for entry in audit] == [
        ("Z", {"op": "fork", "targetWorkflowID": wid, "actor": "ada", "reason": "drill", "forkedWorkflowID": fork}),
        ("Z", {"op": "resume", "targetWorkflowID": wid, "actor": "ada", "reason": "go on"}),
        ("Z", {"op": "cancel", "targetWorkflowID": wid, "actor": "ada", "reason": "drill"}),
    ]
    assert (await client.get(f"/api/ops/wf/{fork}")).json()["audit"] == []


async def test_an_action_is_an_artifact_of_its_run(client: httpx.AsyncClient, rows: Rows) -> None:
    wid = await rows.run()
    await rows.fetch("insert into engine.clock (now_ms) values (1767268800123)")
    await client.post(f"/api/ops/wf/{wid}/cancel", json=WHO)
    await rows.fetch("delete from engine.clock")
    [artifact] = await rows.fetch(
        "select run_id, step_id, idx, attempt, kind, uri, inline, sha256, task_key from app.artifacts where step_id = 'OPS'"
    )
    *rest, uri, inline, digest, task_key = artifact
    assert rest == [run_id(wid), "OPS", 0, 1, "json_diagnostic"]
    assert task_key.startswith("op-intent:cancel:")
    assert uri == f"artifact://run/{run_id(wid)}/step/OPS/task/{task_key}/cancel.json"
    assert inline == {"op": "cancel", "targetWorkflowID": wid, "at": "2026-01-01T12:00:00.123Z"} | WHO
    assert digest == sha256_json(inline)
    assert (await client.get(f"/api/artifacts/{uri}")).json() == inline


async def test_an_action_and_its_artifact_are_one_commit(client: httpx.AsyncClient, rows: Rows) -> None:
    wid = await rows.run()
    await rows.fetch("create function refuse() returns trigger language plpgsql as 'begin raise ''no''; end'")
    await rows.fetch("create trigger refuse before insert on app.artifacts for each row execute function refuse()")
    try:
        assert (await client.post(f"/api/ops/wf/{wid}/cancel", json=WHO)).status_code == 500
        assert await status_of(rows, wid) == "PENDING"
    finally:
        await rows.fetch("drop trigger refuse on app.artifacts")
        await rows.fetch("drop function refuse")


async def test_what_was_done_cannot_be_undone_in_the_records(client: httpx.AsyncClient, rows: Rows) -> None:
    wid = await rows.run()
    await client.post(f"/api/ops/wf/{wid}/cancel", json=WHO)
    for statement in ("update app.artifacts set inline = '{}'", "delete from app.artifacts"):
        with pytest.raises(Exception, match="append-only"):
            await rows.fetch(statement)


async def test_equal_actions_of_one_millisecond_do_not_collide(client: httpx.AsyncClient, rows: Rows) -> None:
    wid = await rows.run()
    await step(rows, wid, 1)
    await rows.fetch("insert into engine.clock (now_ms) values (1767268800000)")
    answers = await asyncio.gather(*(client.post(f"/api/ops/wf/{wid}/{op}", json=WHO) for op in ["cancel", "resume"] * 6))
    await rows.fetch("delete from engine.clock")
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert {answer.status_code for answer in answers} <= {202, 409}
    written = await actions(rows)
    assert len(written) == len(accepted) >= 2
    assert {action["at"] for action in written} == {"2026-01-01T12:00:00.000Z"}


async def test_of_two_cancels_at_the_same_time_one_succeeds(client: httpx.AsyncClient, rows: Rows) -> None:
    wid = await rows.run()
    answers = await asyncio.gather(*(client.post(f"/api/ops/wf/{wid}/cancel", json=WHO) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    assert len(await actions(rows)) == 1


async def test_a_workflow_that_is_no_run_gets_one_for_its_records(client: httpx.AsyncClient, rows: Rows) -> None:
    await made(rows, "chore-1")
    assert (await client.post("/api/ops/wf/chore-1/cancel", json=WHO)).status_code == 202
    found = await rows.fetch("select id, intent_id, workflow_id, status from app.runs")
    assert found == [(run_id("chore-1"), "it-ops-chore-1", "chore-1", "canceled")]
    assert (await client.get("/api/runs/chore-1")).json()["status"] == "CANCELLED"
    assert (await client.post("/api/ops/wf/chore-1/resume", json=WHO)).status_code == 202
    assert await rows.fetch("select intent_id, status from app.runs") == [("it-ops-chore-1", "queued")]
    assert [entry["op"] for entry in (await client.get("/api/ops/wf/chore-1")).json()["audit"]] == ["resume", "cancel"]
    assert await rows.value("select count(*) from app.intents") == 1


async def test_an_action_on_a_run_makes_no_other_run(client: httpx.AsyncClient, rows: Rows) -> None:
    wid = await rows.run("succeeded", workflow_status="SUCCESS")
    await step(rows, wid, 1)
    await client.post(f"/api/ops/wf/{wid}/fork", json=WHO | {"stepN": 1})
    assert await rows.fetch("select workflow_id, status from app.runs") == [(wid, "succeeded")]
    assert await rows.fetch("select id from app.intents") == [(wid,)]


# Runs and their engine -------------------------------------------------------------------------------------------------------


async def test_a_cancelled_run_says_so_at_once(client: httpx.AsyncClient, rows: Rows) -> None:
    wid = await rows.run("waiting_input")
    await rows.gate()
    await client.post(f"/api/ops/wf/{wid}/cancel", json=WHO)
    header = (await client.get(f"/api/runs/{wid}")).json()
    assert (header["status"], header["durableStatus"], header["nextAction"]) == ("CANCELLED", "canceled", "NONE")
    await client.post(f"/api/ops/wf/{wid}/resume", json=WHO)
    header = (await client.get(f"/api/runs/{wid}")).json()
    assert (header["status"], header["durableStatus"], header["nextAction"]) == ("WAITING_INPUT", "waiting_input", "APPROVE_PLAN")


async def child_of(rows: Rows, parent: str, id: str, status: str = "PENDING") -> str:
    await made(rows, id, status)
    await rows.fetch("update dbos.workflow_status set parent_workflow_id = %s where workflow_uuid = %s", parent, id)
    return id


async def test_a_cancel_takes_the_children_along_and_a_resume_brings_them_back(client: httpx.AsyncClient, rows: Rows) -> None:
    wid = await rows.run()
    await child_of(rows, wid, "at work")
    await child_of(rows, "at work", "below")
    await child_of(rows, wid, "done", "SUCCESS")
    await client.post(f"/api/ops/wf/{wid}/cancel", json=WHO)
    assert [await status_of(rows, id) for id in ("at work", "below", "done")] == ["CANCELLED", "CANCELLED", "SUCCESS"]
    await child_of(rows, wid, "given up", "CANCELLED")
    await rows.fetch(
        """insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, child_workflow_id, error, call_path)
           values (%s, 9, 'DBOS.getResult', 'given up', '{"message": "it was cancelled"}', '9')""",
        wid,
    )
    await client.post(f"/api/ops/wf/{wid}/resume", json=WHO)
    states = [await status_of(rows, id) for id in (wid, "at work", "below", "done", "given up")]
    assert states == ["ENQUEUED", "ENQUEUED", "ENQUEUED", "SUCCESS", "CANCELLED"]


async def test_a_fork_hears_what_its_original_was_told_behind_its_point(client: httpx.AsyncClient, rows: Rows) -> None:
    await made(rows, "w", "SUCCESS")
    for number in (1, 2):
        await step(rows, "w", number, "DBOS.recv")
        await rows.engine.send("w", f"m{number}", topic="t", key=f"k{number}")
    await rows.engine.send("w", "m3", topic="t")
    await rows.fetch("update dbos.notifications set consumed = true, consumed_by_function_id = 1 where message like '%%m1%%'")
    await rows.fetch("update dbos.notifications set consumed = true, consumed_by_function_id = 2 where message like '%%m2%%'")
    fork = (await client.post("/api/ops/wf/w/fork", json=WHO | {"stepN": 2})).json()["forkedWorkflowID"]
    heard = [(message.value, message.consumed_by) for message in await rows.engine.messages(fork)]
    assert heard == [("m2", None), ("m3", None)]
    assert not await rows.engine.send(fork, "again", topic="t", key="k2")


async def test_a_fork_begins_before_a_child_that_has_not_ended(client: httpx.AsyncClient, rows: Rows) -> None:
    await made(rows, "w")
    for number, state in ((1, "SUCCESS"), (2, "CANCELLED"), (3, "PENDING")):
        await step(rows, "w", number, "Child")
        await rows.fetch("update dbos.operation_outputs set child_workflow_id = %s where function_id = %s", f"c{number}", number)
        await child_of(rows, "w", f"c{number}", state)
    fork = (await client.post("/api/ops/wf/w/fork", json=WHO | {"stepN": 3})).json()["forkedWorkflowID"]
    assert await rows.fetch("select function_id from dbos.operation_outputs where workflow_uuid = %s", fork) == [(1,)]


# Views and queues --------------------------------------------------------------------------------------------------------------------


COLUMNS: dict[str, str] = {
    "v_ops_failures_24h": "workflow_uuid status workflow_name class_name application_version created_at updated_at error recovery_attempts",
    "v_ops_slow_steps": "workflow_uuid function_id function_name started_at_epoch_ms completed_at_epoch_ms duration_ms error",
    "v_ops_queue_depth": "queue_name status workflow_count oldest_created_at newest_created_at",
    "v_ops_queue_fairness": "queue_name queue_partition_key status workflow_count oldest_created_at newest_created_at",
    "v_ops_queue_priority": "queue_name priority status workflow_count avg_latency_ms",
}


async def test_the_views_have_the_columns_that_operators_know(rows: Rows) -> None:
    found = await rows.fetch(
        """select table_name, string_agg(column_name, ' ' order by ordinal_position) from information_schema.columns
            where table_schema = 'app' and table_name like 'v\\_ops\\_%%' group by 1"""
    )
    assert dict(found) == COLUMNS


async def test_queue_depth_counts_what_is_queued_and_at_work(client: httpx.AsyncClient, rows: Rows) -> None:
    for number, (queue, status) in enumerate(
        [("b", "ENQUEUED"), ("b", "ENQUEUED"), ("b", "PENDING"), ("a", "PENDING"), ("a", "SUCCESS"), (None, "PENDING")]
    ):
        await made(rows, f"w{number}", status, queue=queue, created_at=number)

    async def depth(query: str = "") -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in (await client.get(f"/api/ops/queue-depth?{query}")).json()]

    every = [("a", "PENDING", 1, 3, 3), ("b", "ENQUEUED", 2, 0, 1), ("b", "PENDING", 1, 2, 2)]
    assert await depth() == every
    assert await depth("limit=2") == every[:2]
    assert await depth("queueName=b") == every[1:]
    assert await depth("queueName=b&status=PENDING") == every[2:]
    assert await depth("queueName=nope") == []


async def test_a_bad_query_of_the_queues_is_refused(client: httpx.AsyncClient) -> None:
    for query in ("unknown=1", "status=SUCCESS", "limit=0", "limit=201", "limit=x"):
        response = await client.get(f"/api/ops/queue-depth?{query}")
        assert response.status_code == 400, query
        assert response.json()["error"].startswith("invalid QueueDepthQuery: data")


# Sleeps --------------------------------------------------------------------------------------------------------------------


async def test_a_sleep_is_started_once(client: httpx.AsyncClient, rows: Rows, engine: Engine) -> None:
    for _ in range(2):
        response = await client.post("/api/ops/sleep?wf=nap&sleep=1500")
        assert (response.status_code, response.json()) == (202, {"accepted": True, "workflowID": "nap"})
    status = await engine.status("nap")
    assert status is not None
    assert (status.name, status.queue, status.version, status.input["positionalArgs"]) == (
        "TimeWorkflow",
        "controlQ",
        "test",
        [1.5],
    )


@pytest.mark.parametrize("path", ["/api/ops/sleep", "/slowstep"])
async def test_a_sleep_that_means_nothing_is_refused(client: httpx.AsyncClient, rows: Rows, path: str) -> None:
    before = await rows.counts()
    for query in ("", "wf=", "sleep=5", "wf=nap&sleep=abc", "wf=nap&sleep=0", "wf=nap&sleep=1.5", "wf=nap&more=1"):
        assert (await client.post(f"{path}?{query}")).status_code == 400, query
    assert await rows.counts() == before


async def test_a_slow_step_is_started_and_its_marks_are_counted(client: httpx.AsyncClient, rows: Rows, engine: Engine) -> None:
    response = await client.post("/slowstep?wf=slow-1")
    assert (response.status_code, response.json()) == (202, {"accepted": True, "workflowId": "slow-1"})
    status = await engine.status("slow-1")
    assert status is not None
    assert (status.name, status.input["positionalArgs"]) == ("SlowStep", ["slow-1", 5.0])
    assert (await client.get("/slowmarks?wf=slow-1")).json() == {"s1": 0, "s2": 0}
    assert (await client.get("/slowmarks")).status_code == 400


async def test_queues_are_shown_with_their_limits_and_pauses(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.engine.queues.declare("intentQ", rate=Rate(100, 60), partition_concurrency=50)
    await rows.engine.queues.pause("intentQ", "t1")
    await rows.engine.queues.pause("extra")
    await made(rows, "w1", "ENQUEUED", queue="intentQ", created_at=1)
    shown = [QueueView.model_validate(row) for row in (await client.get("/api/ops/queues")).json()]
    assert [(q.queueName, q.paused, q.queued) for q in shown] == [
        ("compileQ", False, 0),
        ("controlQ", False, 0),
        ("extra", True, 0),
        ("intentQ", False, 1),
        ("sbxQ", False, 0),
    ]
    intents = shown[3]
    assert (intents.rate, intents.partitionConcurrency, intents.concurrency) == (RateLimit(starts=100, periodS=60), 50, None)
    assert intents.partitions["paused"] == 1
