"""Starting runs: once for the same ask, never for one that breaks a rule."""

import asyncio
import re
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.config import Config
from engine import Engine
from steps.contracts.intent import RunRequest
from steps.contracts.views import RunHeader, StartedRunHeader
from tests.api.samples import SPEC, START, Rows, changed

RUNS = "select count(*) from app.runs"


async def start(client: httpx.AsyncClient, body: Any = START) -> httpx.Response:
    return await client.post("/api/run", json=body)


async def test_a_fresh_start_is_created_and_shown_as_enqueued(client: httpx.AsyncClient, rows: Rows) -> None:
    response = await start(client)
    assert response.status_code == 201
    header = StartedRunHeader.model_validate(response.json())
    assert (header.status, header.durableStatus, header.isReplay) == ("ENQUEUED", "queued", False)
    assert header.workflowID == f"ih_{header.intentHash}"
    assert header.recipeRef is not None
    assert (header.recipeRef.id, header.recipeRef.v, header.appVersion) == ("sample", "1.0.0", "test")
    assert await rows.fetch(
        """select r.workflow_id, r.status, r.queue_partition_key, s.status, s.queue_name, s.queue_partition_key,
                  s.application_version, s.priority
             from app.runs r join dbos.workflow_status s on s.workflow_uuid = r.workflow_id"""
    ) == [(header.workflowID, "queued", "tenant-1", "ENQUEUED", "intentQ", "tenant-1", "test", 1)]


async def test_the_same_start_again_is_a_replay_of_the_same_run(client: httpx.AsyncClient, rows: Rows) -> None:
    first = (await start(client)).json()
    reordered = {key: START[key] for key in reversed(START)}
    response = await start(client, reordered)
    assert response.status_code == 200
    assert response.json() == first | {"isReplay": True}
    assert await rows.value(RUNS) == 1


async def test_a_hundred_equal_starts_at_once_make_one_run(client: httpx.AsyncClient, rows: Rows) -> None:
    responses = await asyncio.gather(*(start(client) for _ in range(100)))
    codes = [response.status_code for response in responses]
    assert (codes.count(201), codes.count(200)) == (1, 99)
    assert len({response.json()["workflowID"] for response in responses}) == 1
    assert await rows.value(RUNS) == 1
    assert await rows.value("select count(*) from dbos.workflow_status") == 1
    assert await rows.value("select count(*) from app.intents") == 1


@pytest.mark.parametrize(
    ("field", "incoming", "options"),
    [
        ("queue_partition_key", "tenant-2", {"opts__queuePartitionKey": "tenant-2"}),
        ("trace_id", "trace", {"opts__traceId": "trace"}),
        ("tenant_id", "acme", {"opts__tenantId": "acme"}),
    ],
)
async def test_the_same_ask_with_other_particulars_is_a_conflict(
    client: httpx.AsyncClient, rows: Rows, field: str, incoming: str, options: dict[str, Any]
) -> None:
    wid = (await start(client)).json()["workflowID"]
    before = await rows.counts()
    response = await start(client, changed(START, **options))
    assert response.status_code == 409
    body = response.json()
    assert body["error"] == f"Divergence in run {wid}: identity drift on {field}"
    assert [(entry["field"], entry["incoming"]) for entry in body["drift"]] == [(field, incoming)]
    assert await rows.counts() == before


async def test_a_lane_is_no_particular_of_a_run(client: httpx.AsyncClient, rows: Rows) -> None:
    await start(client)
    assert (await start(client, changed(START, opts__lane="batch"))).status_code == 200


async def test_two_versions_that_render_the_same_intent_are_a_conflict(client: httpx.AsyncClient, rows: Rows) -> None:
    other = changed(SPEC, v="2.0.0", name="another version")
    assert (await client.post("/api/recipes/import", json={"id": "sample", "versions": [other]})).status_code == 201
    await start(client)
    before = await rows.counts()
    response = await start(client, changed(START, recipeRef__v="2.0.0"))
    assert response.status_code == 409
    assert response.json()["error"].startswith("intent hash conflict with divergent recipe refs: ")
    assert await rows.counts() == before


async def test_an_unknown_recipe_is_not_found(client: httpx.AsyncClient, rows: Rows) -> None:
    before = await rows.counts()
    response = await start(client, changed(START, recipeRef__v="9"))
    assert response.status_code == 404
    assert response.json() == {"error": "workflow not found: Recipe not found: sample@9"}
    assert await rows.counts() == before


BUDGET = {
    "maxFanout": 1,
    "maxSBXMinutes": 5,
    "maxArtifactsMB": 5,
    "maxRetriesPerStep": 0,
    "maxWallClockMS": 30_000,
}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (changed(START, bogus=1), "invalid RunStartRequest: data must NOT have additional properties"),
        (changed(START, recipeRef__w=1), "invalid RunStartRequest: data/recipeRef must NOT have"),
        (changed(START, recipeRef__id=""), "invalid RunStartRequest: data/recipeRef/id must NOT have fewer"),
        (changed(START, opts__lane="slow"), "invalid RunStartRequest: data/opts/lane must be one of"),
        (changed(START, opts__priority="1"), "invalid RunStartRequest: data/opts/priority must be integer"),
        (changed(START, opts__priority=2**40), "invalid RunStartRequest: data/opts/priority must be"),
        (changed(START, opts__timeoutMS=2**70), "invalid RunStartRequest: data/opts/timeoutMS must be"),
        (changed(START, opts__budget=BUDGET | {"maxFanout": 0}), "invalid RunStartRequest: data/opts/budget"),
        (changed(START, formData=[]), "invalid RunStartRequest: data/formData must be object"),
        (changed(START, formData={"goal": "x"}), "missing template key: formData.account"),
        (changed(START, formData__goal=7), "invalid formData: formData/goal must be string"),
        (changed(START, formData__goal=""), "invalid Intent: data/goal must NOT have fewer"),
    ],
)
async def test_a_malformed_start_is_refused_and_writes_nothing(
    client: httpx.AsyncClient, rows: Rows, body: Any, error: str
) -> None:
    before = await rows.counts()
    response = await start(client, body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(error), response.text
    assert "code" not in response.json()
    assert await rows.counts() == before


async def test_every_option_may_be_null_and_then_counts_as_left_out(client: httpx.AsyncClient, rows: Rows) -> None:
    nothing = dict.fromkeys(RunRequest.model_fields)
    assert (await start(client, changed(START, opts=nothing | {"queuePartitionKey": "tenant-1"}))).status_code == 201
    assert (await start(client)).status_code == 200
    refused = await start(client, changed(START, opts=None))
    assert (refused.status_code, refused.json()["code"]) == (400, "queue_policy_violation")


async def test_a_start_keeps_what_it_was_asked_for(client: httpx.AsyncClient, rows: Rows) -> None:
    options = {
        "queuePartitionKey": "tenant-1",
        "tenantId": "acme",
        "traceId": "trace-1",
        "lane": "batch",
        "timeoutMS": 30_000,
        "budget": BUDGET,
        "workload": {"concurrency": 1, "steps": 1, "sandboxMinutes": 5},
        "recipeName": "another",
        "recipeVersion": 7,
        "deduplicationID": "mine",
    }
    assert (await start(client, changed(START, opts=options))).status_code == 201
    assert await rows.fetch(
        """select r.tenant_id, r.trace_id, r.budget, r.recipe_id, s.priority, s.workflow_timeout_ms, s.deduplication_id
             from app.runs r join dbos.workflow_status s on s.workflow_uuid = r.workflow_id"""
    ) == [("acme", "trace-1", BUDGET, "sample", 1000, 30_000, None)]
    before = await rows.counts()
    drifted = (await start(client)).json()["drift"]
    assert [entry["field"] for entry in drifted] == ["trace_id", "tenant_id", "budget"]
    assert await rows.counts() == before


async def test_the_first_check_in_order_speaks(client: httpx.AsyncClient, rows: Rows) -> None:
    """Form of the request, recipe, form of the intent, rules of the queues, and last the run that is there."""
    await start(client)
    body = changed(START, bogus=1, recipeRef__v="9", opts={"traceId": "other"})
    del body["formData"]["account"]
    before = await rows.counts()
    for status, error, mended in (
        (400, "invalid RunStartRequest", {"recipeRef": {"id": "sample", "v": "9"}}),
        (404, "workflow not found: Recipe not found: sample@9", {"recipeRef": START["recipeRef"]}),
        (400, "missing template key: formData.account", {"formData": START["formData"]}),
        (400, "queuePartitionKey is required", {"opts": {"traceId": "other", "queuePartitionKey": "tenant-1"}}),
        (409, "Divergence in run", {"opts": START["opts"]}),
    ):
        response = await start(client, body)
        assert (response.status_code, response.json()["error"][: len(error)]) == (status, error)
        body.pop("bogus", None)
        body |= mended
    assert (await start(client, body)).status_code == 200
    assert await rows.counts() == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "queuePartitionKey is required for partitioned operations (queue: intentQ, isParent: true)"),
        ({"queuePartitionKey": " "}, "queuePartitionKey is required"),
        (
            {"queuePartitionKey": "q", "queueName": "sbxQ"},
            "parent intent workflow must use intentQ (got sbxQ)",
        ),
        ({"queuePartitionKey": "q", "tenantId": " "}, "tenantId cannot be blank"),
        (
            {"queuePartitionKey": "q", "workload": {"concurrency": 2, "steps": 1, "sandboxMinutes": 1}},
            "recipe cap exceeded: concurrency 2 > 1",
        ),
        (
            {
                "queuePartitionKey": "q",
                "workload": {"concurrency": 1, "steps": 3, "sandboxMinutes": 1},
                "budget": BUDGET,
            },
            "budget:maxFanout: observed 3 > limit 1 (ingress)",
        ),
        (
            {"queuePartitionKey": "q", "timeoutMS": 30_001, "budget": BUDGET},
            "budget:maxWallClockMS: observed 30001 > limit 30000 (ingress)",
        ),
    ],
)
async def test_a_start_against_the_rules_of_the_queues_is_refused_and_writes_nothing(
    client: httpx.AsyncClient, rows: Rows, options: dict[str, Any], error: str
) -> None:
    before = await rows.counts()
    response = await start(client, changed(START, opts=options))
    assert response.status_code == 400
    assert response.json()["code"] == "queue_policy_violation"
    assert response.json()["error"].startswith(error)
    assert await rows.counts() == before


async def test_a_run_is_found_by_its_workflow_id_and_by_its_run_id(client: httpx.AsyncClient, rows: Rows) -> None:
    wid = (await start(client)).json()["workflowID"]
    run_id = await rows.value("select id from app.runs")
    by_workflow = await client.get(f"/api/runs/{wid}")
    assert by_workflow.status_code == 200
    assert RunHeader.model_validate(by_workflow.json()).workflowVersion == "test"
    assert (await client.get(f"/api/runs/{run_id}")).json() == by_workflow.json()


async def test_an_unknown_run_is_not_found(client: httpx.AsyncClient) -> None:
    for path in ("/api/runs/none", "/api/runs/none/steps", "/api/runs/none/steps/ApplyPatchST/patches"):
        response = await client.get(path)
        assert (response.status_code, response.json()) == (404, {"error": "run not found"})


@pytest.mark.parametrize("path", ["/api/intents", "/intents"])
async def test_an_intent_gets_an_id_of_its_own_each_time(client: httpx.AsyncClient, rows: Rows, path: str) -> None:
    intent: dict[str, Any] = {"goal": "demo", "inputs": {"repo": "r"}, "constraints": {}, "connectors": []}
    answers = [await client.post(path, json=intent) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    ids = [answer.json()["intentId"] for answer in answers]
    assert len(set(ids)) == 2
    assert all(re.fullmatch(r"it_[0-9a-f]{16}", id) for id in ids)
    assert await rows.value("select count(*) from app.intents where goal = 'demo' and intent_hash is null") == 2
    assert await rows.value("select payload from app.intents where id = %s", ids[0]) == intent


async def test_with_a_seed_no_id_comes_twice_even_after_a_restart(engine: Engine, database: str) -> None:
    async def ids_of_one_process() -> list[str]:
        app = create_app(engine, Config(database_url=database, random_seed=424242))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front-door") as client:
            intent = {"goal": "demo", "inputs": {}, "constraints": {}}
            answers = await asyncio.gather(*(client.post("/api/intents", json=intent) for _ in range(10)))
        return [answer.json()["intentId"] for answer in answers]

    ids = [*await ids_of_one_process(), *await ids_of_one_process()]
    assert len(set(ids)) == 20
    assert all(re.fullmatch(r"it_[0-9a-f]{16}", id) for id in ids)


@pytest.mark.parametrize(
    "intent",
    [
        {},
        {"inputs": {}, "constraints": {}},
        {"goal": "", "inputs": {}, "constraints": {}},
        {"goal": "g", "inputs": {}, "constraints": {}, "more": 1},
        {"goal": "g", "inputs": [], "constraints": {}},
        {"goal": "g", "inputs": {}, "constraints": {}, "connectors": [1]},
    ],
)
async def test_a_malformed_intent_is_refused_with_details_and_writes_nothing(
    client: httpx.AsyncClient, rows: Rows, intent: Any
) -> None:
    before = await rows.counts()
    response = await client.post("/api/intents", json=intent)
    assert response.status_code == 400
    assert response.json()["error"].startswith("invalid Intent: data")
    assert response.json()["details"]
    assert await rows.counts() == before
