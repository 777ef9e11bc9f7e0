"""Runs as older scripts drive them, with a worker behind the front door."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import Engine
from steps import approvals
from steps.contracts.views import RunView
from steps.identity import gate_key
from steps.opencode import ReplayOpenCode
from steps.records import PHASES
from steps.sandbox import MockSandbox
from tests.api.older_client import RECIPES, Hold, OlderClient
from tests.api.samples import Rows
from tests.steps.product import Product

GOLDEN = Path(__file__).parent / "golden" / "run_view.json"


@pytest.fixture
async def product(engine: Engine, tmp_path: Path) -> AsyncIterator[Product]:
    one = Product(engine, tmp_path, ReplayOpenCode(), MockSandbox(), version="test")
    await one.start_worker()
    yield one
    await one.stop_worker()


@pytest.fixture
async def older(client: httpx.AsyncClient, rows: Rows, product: Product) -> OlderClient:
    await rows.fetch(RECIPES)
    return OlderClient(client, rows)


async def test_a_run_waits_for_its_approval_and_succeeds(older: OlderClient) -> None:
    intent_id = await older.intent("demo c5")
    started = (await older.run(intent_id, traceId="po-demo")).json()
    run_id = started["runId"]
    assert started["workflowId"] == intent_id
    waiting = await older.until(run_id, "waiting_input")
    assert "DecideST" not in [step["stepId"] for step in waiting["steps"]]
    approved = await older.approve(run_id)
    assert approved.status_code == 202
    assert approved.json()["runId"] == run_id
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", approved.json()["approvedAt"])
    done = RunView.model_validate(await older.until(run_id, "succeeded"))
    assert [(step.stepId, step.phase) for step in done.steps] == list(PHASES.items())
    assert (done.lastStep, done.retryCount, done.traceId, done.workflowId) == ("ExecuteST", 0, "po-demo", intent_id)
    assert (await older.view(intent_id))["runId"] == run_id
    late = await older.send(run_id)
    assert (late.status_code, late.json()["error"]) == (409, "cannot send event to run in status succeeded")
    assert await older.rows.fetch("select run_id, approved_by from app.plan_approvals") == [(run_id, "po")]
    assert await older.rows.value("select count(*) from app.mock_receipts where seen_count > 1") == 0


async def test_a_run_that_asks_is_answered_and_approved_without_a_pause(older: OlderClient) -> None:
    run_id = await older.start("ask user")
    await older.until(run_id, "waiting_input")
    assert (await older.send(run_id, answer="42")).status_code == 202
    assert (await older.approve(run_id, "qa")).status_code == 202
    await older.until(run_id, "succeeded")
    prompt = await older.rows.value("select prompt from app.opencode_calls where step_id = 'DecideST'")
    assert "Answer from the user: 42" in prompt
    ledger = await older.rows.fetch("select split_part(gate_key, '-', 1), origin from app.human_interactions order by created_at")
    assert ledger == [("ask", "legacy-event"), ("approve", "legacy-approve")]


async def test_a_run_that_fails_is_retried_and_fails_alike(older: OlderClient) -> None:
    run_id = await older.start("fail me")
    await older.approved(run_id)
    failed = await older.until(run_id, "retries_exceeded")
    assert (failed["error"], failed["nextAction"], failed["lastStep"], failed["retryCount"]) == (
        "SBX execution failed [CMD_NONZERO]",
        "REPAIR",
        "ExecuteST",
        0,
    )
    response = await older.retry(run_id)
    assert (response.status_code, response.json()) == (202, {"accepted": True, "newRunId": run_id, "fromStep": "ExecuteST"})
    again = await older.until(run_id, "retries_exceeded", retries=1)
    assert (again["error"], again["nextAction"]) == (failed["error"], "REPAIR")
    assert (await older.http.get("/api/ops/audit")).json() == [], "of the first nobody said anything"
    by = {"actor": "ada", "reason": "the mirror is back"}
    assert (await older.http.post(f"/runs/{run_id}/retry", json=by | {"more": 1})).status_code == 400
    assert (await older.http.post(f"/runs/{run_id}/retry", json=by)).status_code == 202
    (kept,) = (await older.http.get("/api/ops/audit")).json()
    assert {name: kept[name] for name in ("op", "actor", "reason")} == {"op": "retry"} | by
    await older.until(run_id, "retries_exceeded", retries=2)


@pytest.mark.parametrize("answers", [("po", "qa"), ("po", "po")])
async def test_a_plan_that_needs_two_approvals_gets_them_one_by_one(older: OlderClient, answers: tuple[str, str]) -> None:
    run_id = await older.start("parallel test")
    gates: list[Any] = []
    while len(gates) < 2:
        gates = (await older.http.get(f"/api/runs/{run_id}/gates")).json()
    await older.approve(run_id, answers[0])
    assert (await older.view(run_id))["status"] == "waiting_input"
    await older.approve(run_id, answers[1])
    await older.until(run_id, "succeeded")


async def test_a_plan_whose_time_runs_out_is_refused(older: OlderClient) -> None:
    run_id = await older.start("timeout test")
    failed = await older.until(run_id, "retries_exceeded")
    assert (failed["error"], failed["nextAction"]) == ("Plan approval failed: no (rationale: timeout)", "REPAIR")


async def test_a_plan_that_was_approved_before_anything_ran_does_not_wait(older: OlderClient, product: Product) -> None:
    await product.stop_worker()
    run_id = await older.start()
    assert (await older.approve(run_id)).status_code == 202
    await product.start_worker()
    await older.until(run_id, "succeeded")
    (gate,) = (await older.http.get(f"/api/runs/{run_id}/gates")).json()
    assert (gate["state"], gate["origin"], gate["result"]["payload"]["actor"]) == (
        "RESOLVED",
        "legacy-approve",
        "legacy-plan-approvals",
    )
    assert await older.rows.value("select count(*) from app.human_interactions") == 1


async def test_no_approval_is_lost_whenever_it_comes(older: OlderClient) -> None:
    async def approve_after(pause_s: float) -> str:
        run_id = await older.start()
        await asyncio.sleep(pause_s)
        assert (await older.approve(run_id)).status_code == 202
        return run_id

    runs = await asyncio.gather(*(approve_after(moment * 0.004) for moment in range(40)))
    for run_id in runs:
        await older.until(run_id, "succeeded")
    assert await older.rows.value("select count(*) from app.human_interactions") == len(runs)


@pytest.mark.parametrize("held", ["_find", "_deliver"])
async def test_an_approval_counts_if_the_gate_opens_while_it_is_given(
    older: OlderClient, product: Product, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    await product.stop_worker()
    run_id = await older.start()
    hold = Hold(monkeypatch, approvals, held)
    approving = asyncio.create_task(older.approve(run_id))
    await hold.reached.wait()
    await product.start_worker()
    await older.gate_is_open(run_id, gate_key(run_id, "ApplyPatchST", "approve-plan", 1))
    assert (await older.view(run_id))["status"] == "waiting_input"
    hold.released.set()
    assert (await approving).status_code == 202
    await older.until(run_id, "succeeded")


async def test_no_answer_is_lost_that_comes_as_soon_as_a_run_waits(older: OlderClient) -> None:
    async def answered() -> str:
        run_id = await older.start("ask user")
        while (await older.send(run_id, answer="42")).status_code != 202:
            await asyncio.sleep(0)
        await older.approve(run_id)
        return run_id

    for run_id in await asyncio.gather(*(answered() for _ in range(20))):
        await older.until(run_id, "succeeded")


async def test_a_plan_is_refused_by_an_event(older: OlderClient) -> None:
    run_id = await older.start()
    await older.until(run_id, "waiting_input")
    assert (await older.send(run_id, "approve-plan", approved=False, notes="too bold")).status_code == 202
    failed = await older.until(run_id, "retries_exceeded")
    assert failed["error"] == "Plan approval failed: no (rationale: too bold)"


async def test_a_run_looks_to_older_clients_as_it_always_did(older: OlderClient) -> None:
    """REFRESH_GOLDEN=1 writes the file anew, for a change that is meant."""
    run_id = await older.start(traceId="po-demo")
    await older.approved(run_id)
    await older.until(run_id, "succeeded")
    seen = json.dumps(stable(await older.view(run_id)), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if os.environ.get("REFRESH_GOLDEN") == "1":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(seen)
    assert seen == GOLDEN.read_text()


def stable(view: dict[str, Any]) -> dict[str, Any]:
    """The view without what differs from run to run: ids, times, and the hashes of what holds them."""
    for step in view["steps"]:
        step |= {"traceId": "<trace>", "spanId": "<span>"}
    text = json.dumps(view)
    for id, name in ((view["runId"], "<run>"), (view["workflowId"], "<workflow>")):
        text = text.replace(id, name)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>", text)
    return json.loads(re.sub(r"\b[0-9a-f]{64}\b", "<hash>", text))
