"""A run from form to result, with a worker beside the front door: what a client sees on the way."""

import asyncio
from urllib.parse import quote

import httpx
import pytest

from engine import Engine, WorkflowFailed
from steps.contracts.gate import GateView
from steps.contracts.views import RunHeader, StepRow
from steps.identity import gate_key, prompt_event, run_id
from steps.records import PHASES
from tests.api.samples import START, Rows

WAIT_S = 20.0


async def open_gate(client: httpx.AsyncClient, engine: Engine, wid: str) -> GateView:
    key = gate_key(run_id(wid), "ApplyPatchST", "approve-plan", 1)
    assert await engine.get_event(wid, prompt_event(key), timeout_s=WAIT_S) is not None
    (gate,) = (await client.get(f"/api/runs/{wid}/gates")).json()
    return GateView.model_validate(gate)


async def header_of(client: httpx.AsyncClient, wid: str) -> RunHeader:
    return RunHeader.model_validate((await client.get(f"/api/runs/{wid}")).json())


@pytest.mark.usefixtures("_worker")
async def test_a_run_is_started_asked_approved_and_executed(client: httpx.AsyncClient, engine: Engine, rows: Rows) -> None:
    wid = (await client.post("/api/run", json=START)).json()["workflowID"]
    gate = await open_gate(client, engine, wid)
    assert (gate.state, gate.prompt.ttlS) == ("PENDING", 600)
    waiting = await header_of(client, wid)
    assert (waiting.status, waiting.nextAction) == ("WAITING_INPUT", "APPROVE_PLAN")

    poll = asyncio.create_task(client.get(f"/api/runs/{wid}/gates/{gate.gateKey}?timeoutS=30"))
    reply = f"/api/runs/{wid}/gates/{gate.gateKey}/reply"
    yes = {"payload": {"choice": "yes", "rationale": "fine"}, "dedupeKey": "key-1", "origin": "manual"}
    assert (await client.post(reply, json=yes)).json() == {"ok": True, "isReplay": False}
    async with asyncio.timeout(WAIT_S):
        settled = GateView.model_validate((await poll).json())
    assert (settled.state, settled.origin) == ("RESOLVED", "manual")
    assert settled.result is not None
    assert settled.result.payload == yes["payload"]

    await engine.result(wid, timeout_s=WAIT_S)
    done = await header_of(client, wid)
    assert (done.status, done.durableStatus, done.lastStep) == ("SUCCESS", "succeeded", "ExecuteST")
    steps = [StepRow.model_validate(row) for row in (await client.get(f"/api/runs/{wid}/steps")).json()]
    assert [(step.stepID, step.name, step.attempt) for step in steps] == [(*phase, 1) for phase in PHASES.items()]
    for ref in [ref for step in steps for ref in step.artifactRefs]:
        served = await client.get(f"/api/artifacts/{quote(ref.id, safe='')}")
        assert served.status_code == 200
        assert served.headers["content-type"].startswith(ref.mime)
    assert all(step.artifactRefs for step in steps)

    before = await rows.counts()
    assert (await client.post(reply, json=yes)).json() == {"ok": True, "isReplay": True}
    assert (await client.post(reply, json=yes | {"payload": {"choice": "no"}})).status_code == 409
    assert (await client.post(reply, json=yes | {"dedupeKey": "key-2"})).status_code == 409
    replayed = await client.post("/api/run", json=START)
    assert (replayed.status_code, replayed.json()["status"]) == (200, "SUCCESS")
    assert await rows.counts() == before


@pytest.mark.usefixtures("_worker", "rows")
async def test_an_event_from_outside_rejects_a_plan(client: httpx.AsyncClient, engine: Engine) -> None:
    wid = (await client.post("/api/run", json=START)).json()["workflowID"]
    gate = await open_gate(client, engine, wid)
    event = {
        "workflowId": wid,
        "gateKey": gate.gateKey,
        "topic": gate.topic,
        "payload": {"choice": "no", "rationale": "too risky"},
        "dedupeKey": "event-1",
        "origin": "webhook-ci",
    }
    assert (await client.post("/api/events/hitl", json=event)).status_code == 200
    with pytest.raises(WorkflowFailed):
        await engine.result(wid, timeout_s=WAIT_S)
    header = await header_of(client, wid)
    assert (header.status, header.durableStatus, header.nextAction) == ("ERROR", "retries_exceeded", "REPAIR")
    assert header.error is not None
    assert "too risky" in header.error.message


@pytest.mark.usefixtures("_worker")
async def test_a_crash_drill_leaves_two_marks(client: httpx.AsyncClient, engine: Engine) -> None:
    assert (await client.post("/crashdemo?wf=drill-1")).status_code == 202
    await engine.result("drill-1", timeout_s=WAIT_S)
    assert (await client.get("/marks?wf=drill-1")).json() == {"s1": 1, "s2": 1}
