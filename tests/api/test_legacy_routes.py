"""The older routes: what they answer, in which order they refuse, and how they are switched off."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from psycopg.types.json import Jsonb

from api.app import create_app
from api.config import Config
from bin.roles import api_config
from bin.settings import Settings
from engine import Engine
from steps.contracts.views import RunView, StartedRunHeader
from steps.identity import run_id
from tests.api.older_client import RECIPES
from tests.api.samples import RUN_ID, START, WID, Rows

SUNSET = "Tue, 30 Jun 2026 23:59:59 GMT"
APPROVE = {"approvedBy": "po"}
GATED = [
    ("/intents/{intent}/run", {}, "POST /api/run"),
    ("/runs/{run}/approve-plan", APPROVE, "POST /api/runs/:wid/gates/:gateKey/reply"),
    ("/api/runs/{run}/approve-plan", APPROVE, "POST /api/runs/:wid/gates/:gateKey/reply"),
]


@pytest.fixture
async def rows(rows: Rows) -> Rows:
    await rows.fetch(RECIPES)
    return rows


@pytest.fixture
async def closed(engine: Engine, database: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a front door whose older routes are switched off."""
    app = create_app(engine, Config(database_url=database, legacy_routes=False))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front-door") as client,
    ):
        yield client


async def stored(client: httpx.AsyncClient, goal: str = "demo") -> str:
    intent = {"goal": goal, "inputs": {}, "constraints": {}}
    return (await client.post("/intents", json=intent)).json()["intentId"]


async def run(client: httpx.AsyncClient, intent_id: str, **options: Any) -> httpx.Response:
    return await client.post(f"/intents/{intent_id}/run", json=options)


# Switched off, and said to be old ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body", "successor"), GATED)
async def test_a_route_that_is_switched_off_names_its_successor_and_looks_at_nothing(
    closed: httpx.AsyncClient, rows: Rows, path: str, body: dict[str, Any], successor: str
) -> None:
    await rows.waiting_gate()
    intent_id = await stored(closed)
    before = await rows.counts()
    path = path.format(intent=intent_id, run=WID)
    for response in (
        await closed.post(path, json=body),
        await closed.post(path, content=b"{bad"),
        await closed.post(path.replace(WID, "none").replace(intent_id, "none"), json=body),
    ):
        assert (response.status_code, response.json()) == (410, {"error": f"legacy route disabled; use {successor}"})
        assert "deprecation" not in response.headers
    assert await rows.counts() == before


def test_the_settings_reach_the_front_door() -> None:
    config = api_config(Settings(enable_legacy_run_routes=False, random_seed=7), "postgresql:///nowhere")
    assert (config.legacy_routes, config.random_seed) == (False, 7)


async def test_routes_without_a_successor_stay_when_the_others_are_switched_off(closed: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    assert (await closed.get(f"/runs/{WID}")).status_code == 200
    assert (await closed.post(f"/runs/{WID}/retry")).status_code == 409
    assert (await closed.post(f"/runs/{WID}/events", json={"type": "input", "payload": {}})).status_code == 202
    started = await closed.post("/api/runs", json={"intentId": await stored(closed), "queuePartitionKey": "p"})
    assert started.status_code == 201
    assert not {"deprecation", "sunset"} & set(started.headers)


@pytest.mark.parametrize(("path", "body", "_"), GATED)
async def test_a_route_that_is_superseded_says_so_whatever_it_answers(
    client: httpx.AsyncClient, rows: Rows, path: str, body: dict[str, Any], _: str
) -> None:
    await rows.waiting_gate()
    intent_id = await stored(client)
    answers = [
        (202, await client.post(path.format(intent=intent_id, run=WID), json=body)),
        (400, await client.post(path.format(intent=intent_id, run=WID), content=b"{bad")),
        (404, await client.post(path.format(intent="none", run="none"), json=body)),
    ]
    for status, response in answers:
        assert response.status_code == status, response.text
        assert (response.headers["deprecation"], response.headers["sunset"]) == ("true", SUNSET)


# Starting a stored intent -----------------------------------------------------------------------------------------------


async def test_a_stored_intent_is_started_once_however_often_it_is_asked_for(client: httpx.AsyncClient, rows: Rows) -> None:
    intent_id = await stored(client)
    responses = await asyncio.gather(*(run(client, intent_id, traceId="po-demo") for _ in range(10)))
    assert {response.status_code for response in responses} == {202}
    assert {str(response.json()) for response in responses} == {
        str({"runId": run_id(intent_id), "workflowId": intent_id}),
    }
    assert await rows.fetch(
        """select r.id, r.workflow_id, r.intent_id, r.status, r.trace_id, s.status, s.queue_name, s.priority, s.application_version
             from app.runs r join dbos.workflow_status s on s.workflow_uuid = r.workflow_id"""
    ) == [(run_id(intent_id), intent_id, intent_id, "queued", "po-demo", "ENQUEUED", "intentQ", 1, "test")]


@pytest.mark.parametrize(
    ("options", "partition"),
    [({}, "legacy"), ({"tenantId": "acme"}, "acme"), ({"queuePartitionKey": "legacy-p1"}, "legacy-p1")],
)
async def test_a_start_that_names_no_partition_is_given_one(
    client: httpx.AsyncClient, rows: Rows, options: dict[str, Any], partition: str
) -> None:
    assert (await run(client, await stored(client), **options)).status_code == 202
    assert await rows.fetch(
        """select r.queue_partition_key, s.queue_partition_key
             from app.runs r join dbos.workflow_status s on s.workflow_uuid = r.workflow_id"""
    ) == [(partition, partition)]


async def test_a_goal_to_rehearse_with_is_stored_as_the_constraints_that_it_stands_for(
    client: httpx.AsyncClient, rows: Rows
) -> None:
    intent_id = await stored(client, "ask user")
    assert await rows.value("select payload from app.intents where id = %s", intent_id) == {
        "goal": "ask user",
        "inputs": {},
        "constraints": {"testHooks": {"askUser": True}},
    }


async def test_the_same_intent_with_other_particulars_is_a_conflict(client: httpx.AsyncClient, rows: Rows) -> None:
    intent_id = await stored(client)
    await run(client, intent_id, traceId="one")
    before = await rows.counts()
    response = await run(client, intent_id, traceId="two")
    assert response.status_code == 409
    assert response.json()["drift"] == [{"field": "trace_id", "existing": "one", "incoming": "two"}]
    assert await rows.counts() == before


OVER_CAP = {"recipeName": "sandbox-default", "workload": {"concurrency": 999, "steps": 1, "sandboxMinutes": 1}}


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"unknown": 1}, "invalid RunRequest: data must NOT have additional properties ('unknown' is unknown)", None),
        ({"lane": "slow"}, "invalid RunRequest: data/lane must be one of", None),
        (OVER_CAP, "recipe cap exceeded: concurrency 999 > 20", "queue_policy_violation"),
        ({"recipeName": "nope"}, "recipe not found: nope", "queue_policy_violation"),
        ({"queuePartitionKey": " "}, "queuePartitionKey is required", "queue_policy_violation"),
        ({"tenantId": " "}, "tenantId cannot be blank", "queue_policy_violation"),
        ({"queueName": "sbxQ"}, "parent intent workflow must use intentQ (got sbxQ)", "queue_policy_violation"),
    ],
)
async def test_schema_and_policy_speak_before_an_unknown_intent_and_nothing_is_written(
    client: httpx.AsyncClient, rows: Rows, options: dict[str, Any], error: str, code: str | None
) -> None:
    intent_id = await stored(client)
    before = await rows.counts()
    for id in (intent_id, "it_unknown"):
        for response in (
            await run(client, id, **options),
            await client.post("/api/runs", json={"queuePartitionKey": "p", **options, "intentId": id}),
        ):
            assert response.status_code == 400
            assert response.json()["error"].startswith(error), response.text
            assert response.json().get("code") == code
            assert ("details" in response.json()) == (code is None)
    assert await rows.counts() == before


async def test_an_unknown_intent_is_not_found(client: httpx.AsyncClient, rows: Rows) -> None:
    before = await rows.counts()
    for response in (
        await run(client, "it_unknown"),
        await client.post("/api/runs", json={"intentId": "it_unknown", "queuePartitionKey": "p"}),
    ):
        assert (response.status_code, response.json()) == (404, {"error": "intent not found"})
    assert await rows.counts() == before


async def test_a_stored_intent_can_also_be_started_for_its_header(client: httpx.AsyncClient, rows: Rows) -> None:
    body = {"intentId": await stored(client), "queuePartitionKey": "p", "traceId": "t"}
    fresh, again = await client.post("/api/runs", json=body), await client.post("/api/runs", json=body)
    assert (fresh.status_code, again.status_code) == (201, 200)
    header = StartedRunHeader.model_validate(fresh.json())
    assert (header.workflowID, header.status, header.isReplay) == (body["intentId"], "ENQUEUED", False)
    assert (header.recipeRef, header.intentHash, header.traceId) == (None, None, "t")
    assert again.json() == fresh.json() | {"isReplay": True}
    older = await run(client, body["intentId"], queuePartitionKey="p", traceId="t")
    assert older.json()["workflowId"] == header.workflowID
    assert await rows.value("select count(*) from app.runs") == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("{bad", "invalid json"),
        ("[]", "invalid json payload"),
        ("null", "invalid json payload"),
        ('"it_1"', "invalid json payload"),
        ("{}", "intentId required"),
        ("", "intentId required"),
        ('{"intentId": null}', "intentId required"),
        ('{"intentId": 7}', "intentId required"),
        ('{"intentId": "  ", "bogus": 1}', "intentId required"),
        ('{"intentId": "it_1", "queuePartitionKey": null}', "queuePartitionKey is required for partitioned operations"),
        ('{"intentId": "it_1\\u0000", "queuePartitionKey": "p"}', "invalid RunRequest: data"),
    ],
)
async def test_a_start_by_id_says_what_is_wrong_with_its_body(
    client: httpx.AsyncClient, rows: Rows, body: str, error: str
) -> None:
    before = await rows.counts()
    response = await client.post("/api/runs", content=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(error), response.text
    assert await rows.counts() == before


async def test_a_stored_intent_that_the_engine_will_not_start_leaves_no_run(client: httpx.AsyncClient, rows: Rows) -> None:
    intent_id = await stored(client)
    await rows.fetch("insert into dbos.workflow_status (workflow_uuid, status, name) values (%s, 'SUCCESS', 'Other')", intent_id)
    before = await rows.counts()
    response = await run(client, intent_id)
    assert response.status_code == 409
    assert await rows.counts() == before


# Reading a run ----------------------------------------------------------------------------------------------------------


async def test_a_run_is_read_by_either_of_its_ids(client: httpx.AsyncClient, rows: Rows) -> None:
    intent_id = await stored(client)
    started = (await run(client, intent_id, traceId="po-demo")).json()
    by_run = await client.get(f"/runs/{started['runId']}")
    assert by_run.status_code == 200
    assert by_run.json() == {
        "runId": started["runId"],
        "workflowId": intent_id,
        "recipeRef": None,
        "recipeHash": None,
        "intentHash": None,
        "status": "queued",
        "steps": [],
        "artifacts": [],
        "traceId": "po-demo",
        "retryCount": 0,
    }
    assert (await client.get(f"/runs/{intent_id}")).json() == by_run.json()
    assert not {"deprecation", "sunset"} & set(by_run.headers)


async def test_a_run_of_a_recipe_is_read_with_it(client: httpx.AsyncClient, rows: Rows) -> None:
    header = (await client.post("/api/run", json=START)).json()
    view = RunView.model_validate((await client.get(f"/runs/{header['workflowID']}")).json())
    assert view.recipeRef is not None
    assert (view.recipeRef.id, view.recipeHash, view.intentHash) == ("sample", header["recipeHash"], header["intentHash"])


STEP = """
    insert into app.run_steps (run_id, step_id, phase, output, attempt, started_at, finished_at, trace_id)
    values (%s, %s, %s, %s, %s, '2026-01-02T03:04:05.678901+02', null, 'trace')
"""
ARTIFACT = """
    insert into app.artifacts (run_id, step_id, idx, kind, uri, inline, sha256, task_key, attempt)
    values (%s, %s, %s, 'json', %s, %s, 'hash', %s, %s)
"""


async def test_a_run_is_shown_in_the_order_of_its_story_with_the_latest_attempt_at_each_step(
    client: httpx.AsyncClient, rows: Rows
) -> None:
    await rows.run("retries_exceeded")
    for step_id, phase, attempt in (
        ("ExecuteST", "execution", 2),
        ("ExecuteST", "execution", 1),
        ("CompileST", "compilation", 1),
    ):
        await rows.fetch(STEP, RUN_ID, step_id, phase, Jsonb({"attempt": attempt}), attempt)
    for step_id, idx, task, attempt in (
        ("OPS", 0, "", 1),
        ("ExecuteST", 1, "a", 2),
        ("ExecuteST", 0, "b", 2),
        ("ExecuteST", 0, "a", 2),
        ("ExecuteST", 0, "a", 1),
        ("CompileST", 999, "", 1),
        ("CompileST", 0, "", 1),
    ):
        await rows.fetch(ARTIFACT, RUN_ID, step_id, idx, f"{step_id}/{task}/{idx}/{attempt}", Jsonb({"text": "x"}), task, attempt)
    await rows.fetch("update app.runs set error = 'why', retry_count = 1, next_action = 'REPAIR', last_step = 'ExecuteST'")
    view = (await client.get(f"/runs/{WID}")).json()
    RunView.model_validate(view)
    assert view["steps"] == [
        {
            "stepId": step_id,
            "phase": phase,
            "output": {"attempt": attempt},
            "startedAt": "2026-01-02T01:04:05.678Z",
            "traceId": "trace",
            "spanId": None,
        }
        for step_id, phase, attempt in (("CompileST", "compilation", 1), ("ExecuteST", "execution", 2))
    ]
    assert [artifact["uri"] for artifact in view["artifacts"]] == [
        "CompileST//0/1",
        "CompileST//999/1",
        "ExecuteST/a/0/2",
        "ExecuteST/a/1/2",
        "ExecuteST/b/0/2",
        "OPS//0/1",
    ]
    assert view["artifacts"][0] == {"kind": "json", "uri": "CompileST//0/1", "inline": {"text": "x"}, "sha256": "hash"}
    assert (view["error"], view["retryCount"], view["nextAction"], view["lastStep"]) == ("why", 1, "REPAIR", "ExecuteST")


# What is not there, and what is in the wrong state ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/runs/none"),
        ("POST", "/runs/none/retry"),
        ("POST", "/runs/none/events"),
        ("POST", "/runs/none/approve-plan"),
        ("POST", "/api/runs/none/approve-plan"),
    ],
)
async def test_an_unknown_run_is_not_found_before_the_body_is_looked_at(
    client: httpx.AsyncClient, rows: Rows, method: str, path: str
) -> None:
    before = await rows.counts()
    response = await client.request(method, path, content=b"{bad")
    assert (response.status_code, response.json()) == (404, {"error": "run not found"})
    assert await rows.counts() == before


@pytest.mark.parametrize("status", ["queued", "running", "waiting_input", "repairing", "succeeded", "canceled"])
async def test_only_a_run_that_failed_can_be_retried(client: httpx.AsyncClient, rows: Rows, status: str) -> None:
    await rows.run(status)
    before = await rows.counts()
    response = await client.post(f"/runs/{RUN_ID}/retry")
    assert response.status_code == 409
    assert response.json() == {"error": f"cannot retry run in status {status}", "status": status}
    assert await rows.counts() == before


@pytest.mark.parametrize("path", ["/runs/{}/approve-plan", "/api/runs/{}/approve-plan"])
@pytest.mark.parametrize(
    "body", ["{bad", "{}", '{"notes": "missing approvedBy"}', '{"approvedBy": ""}', '{"approvedBy": "a", "more": 1}', "[]"]
)
async def test_a_malformed_approval_is_refused_and_writes_nothing(
    client: httpx.AsyncClient, rows: Rows, path: str, body: str
) -> None:
    await rows.waiting_gate()
    before = (await rows.counts(), await rows.value("select count(*) from app.plan_approvals"))
    response = await client.post(path.format(WID), content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error == "invalid json" or error.startswith("invalid PlanApprovalRequest: data")
    assert (await rows.counts(), await rows.value("select count(*) from app.plan_approvals")) == before
