"""Gates with a worker behind them: what people are asked, what they see of it, and what becomes of their answers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import Engine
from steps import identity
from steps.contracts.gate import GateView, InteractionRow
from steps.opencode import ReplayOpenCode
from steps.retry import retry_run
from steps.sandbox import MockSandbox
from tests.api.samples import Rows
from tests.steps.product import Product

WAIT_S = 20.0
YES = {"choice": "yes"}
NO = {"choice": "no", "rationale": "not yet"}
PARALLEL = {"testHooks": {"parallelApprovals": True}}
DECISIONS = "select value from dbos.workflow_events_history where workflow_uuid = %s and key = %s"
LEDGER = "select dedupe_key, origin from app.human_interactions where workflow_id = %s order by created_at, dedupe_key"


@pytest.fixture
async def runs(engine: Engine, tmp_path: Path, rows: Rows) -> AsyncIterator[Product]:
    """A worker beside the front door, and runs of any constraints."""
    product = Product(engine, tmp_path, ReplayOpenCode(), MockSandbox())
    await product.start_worker()
    yield product
    await product.stop_worker()


async def answer(
    client: httpx.AsyncClient, wid: str, gate: str, payload: dict[str, Any], key: str = "key-1", origin: str = "manual"
) -> httpx.Response:
    body = {"payload": payload, "dedupeKey": key, "origin": origin}
    return await client.post(f"/api/runs/{wid}/gates/{gate}/reply", json=body)


async def accepted(client: httpx.AsyncClient, wid: str, gate: str, payload: dict[str, Any]) -> None:
    response = await answer(client, wid, gate, payload)
    assert (response.status_code, response.json()) == (200, {"ok": True, "isReplay": False})


async def settled(client: httpx.AsyncClient, wid: str, gate: str) -> GateView:
    """The gate, once nothing more will happen to it."""
    async with asyncio.timeout(WAIT_S):
        response = await client.get(f"/api/runs/{wid}/gates/{gate}?timeoutS=30")
    return GateView.model_validate(response.json())


async def states(client: httpx.AsyncClient, wid: str) -> dict[str, str]:
    return {gate["gateKey"]: gate["state"] for gate in (await client.get(f"/api/runs/{wid}/gates")).json()}


async def inbox(client: httpx.AsyncClient) -> list[str]:
    return [row["gateKey"] for row in (await client.get("/api/hitl/inbox")).json()]


async def status(client: httpx.AsyncClient, wid: str) -> tuple[str, str | None]:
    header = (await client.get(f"/api/runs/{wid}")).json()
    return header["status"], header["nextAction"]


# Nobody answers ----------------------------------------------------------------------------------------------------------


async def test_a_gate_that_nobody_answers_is_escalated_once_and_takes_no_late_answer(
    runs: Product, client: httpx.AsyncClient, rows: Rows
) -> None:
    wid = await runs.start(constraints={"planApprovalTimeoutS": 1})
    gate = await runs.prompt(wid)
    view = await settled(client, wid, gate)
    assert (view.state, view.origin, view.payloadHash) == ("TIMED_OUT", None, None)
    assert view.result is not None
    assert (view.result.state, view.result.payload) == ("TIMED_OUT", None)
    assert view.result.at is not None
    assert view.result.at >= view.deadlineAt
    assert (await runs.failure(wid)).message == "Plan approval failed: no (rationale: timeout)"
    assert await status(client, wid) == ("ERROR", "REPAIR")
    assert (await runs.run(wid))["status"] == "retries_exceeded"

    escalation = identity.escalation_id(wid, gate)
    await runs.result(escalation)
    assert await rows.fetch(
        "select workflow_uuid, status, queue_name from dbos.workflow_status where name = 'EscalateTimeout'"
    ) == [(escalation, "SUCCESS", "controlQ")]
    (note,) = await runs.artifacts(wid, "EscalateTimeout")
    assert (note["idx"], note["kind"], note["task_key"]) == (999, "ops", gate)
    assert note["uri"].endswith("/escalation.json")

    before = await rows.counts()
    late = await answer(client, wid, gate, YES)
    assert (late.status_code, late.json()) == (409, {"error": "run not waiting for input: retries_exceeded"})
    event = {"workflowId": wid, "gateKey": gate, "topic": identity.human_topic(gate)}
    event |= {"payload": YES, "dedupeKey": "evt-1", "origin": "webhook"}
    assert (await client.post("/api/events/hitl", json=event)).status_code == 409
    assert await rows.counts() == before
    assert await states(client, wid) == {gate: "TIMED_OUT"}
    assert await inbox(client) == []


async def test_a_question_that_nobody_answers_is_escalated_without_a_decision(runs: Product, client: httpx.AsyncClient) -> None:
    wid = await runs.start(constraints={"askUser": True, "timeoutS": 1})
    gate = await runs.prompt(wid, "ask-user", "CompileST")
    assert (await settled(client, wid, gate)).state == "TIMED_OUT"
    assert (await runs.failure(wid)).message == "Ask-user gate timed out"
    await runs.result(identity.escalation_id(wid, gate))
    events = await runs.events(wid)
    assert events[f"ui:{gate}:audit"]["reason"] == "TTL expired"
    assert f"decision:{gate}" not in events


# Two gates at once -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refuses", [0, 1, None], ids=["the first refuses", "the second refuses", "both agree"])
async def test_both_of_two_gates_decide(runs: Product, client: httpx.AsyncClient, rows: Rows, refuses: int | None) -> None:
    wid = await runs.start(constraints=PARALLEL)
    gates = [await runs.prompt(wid, "parallel-1"), await runs.prompt(wid, "parallel-2")]
    assert await states(client, wid) == dict.fromkeys(gates, "PENDING")
    assert sorted(await inbox(client)) == sorted(gates)
    assert await status(client, wid) == ("WAITING_INPUT", "APPROVE_PLAN")

    await accepted(client, wid, gates[1], NO if refuses == 1 else YES)
    assert (await settled(client, wid, gates[1])).state == "RESOLVED"
    assert await status(client, wid) == ("WAITING_INPUT", "APPROVE_PLAN")
    assert await inbox(client) == [gates[0]]
    changed_mind = await answer(client, wid, gates[1], YES, key="key-2")
    assert (changed_mind.status_code, changed_mind.json()) == (
        409,
        {"error": f"gate {gates[1]} is settled and takes no more answers"},
    )

    await accepted(client, wid, gates[0], NO if refuses == 0 else YES)
    assert (await settled(client, wid, gates[0])).state == "RESOLVED"
    if refuses is None:
        await runs.result(wid)
    else:
        assert (await runs.failure(wid)).message == "Plan approval failed: no (rationale: not yet)"
    assert await status(client, wid) == (("SUCCESS", None) if refuses is None else ("ERROR", "REPAIR"))
    for gate in gates:
        assert len(await rows.fetch(DECISIONS, wid, f"ui:{gate}")) == 1
        assert len(await rows.fetch(DECISIONS, wid, f"decision:{gate}")) == 1


async def test_a_yes_does_not_make_up_for_a_second_gate_that_nobody_answers(
    runs: Product, client: httpx.AsyncClient, rows: Rows
) -> None:
    wid = await runs.start(constraints=PARALLEL | {"timeoutS": 1})
    first, second = await runs.prompt(wid, "parallel-1"), await runs.prompt(wid, "parallel-2")
    await accepted(client, wid, first, YES)
    assert (await runs.failure(wid)).message == "Plan approval failed: no (rationale: timeout)"
    assert await states(client, wid) == {first: "RESOLVED", second: "TIMED_OUT"}
    assert await rows.value("select count(*) from dbos.workflow_status where name = 'EscalateTimeout'") == 1


# A question --------------------------------------------------------------------------------------------------------------


async def test_a_question_is_received_and_has_no_decision(runs: Product, client: httpx.AsyncClient) -> None:
    wid = await runs.start(constraints={"askUser": True})
    gate = await runs.prompt(wid, "ask-user", "CompileST")
    assert await status(client, wid) == ("WAITING_INPUT", None)
    (listed,) = (await client.get(f"/api/runs/{wid}/gates")).json()
    assert listed["prompt"]["formSchema"]["fields"] == [{"k": "answer", "t": "str"}]
    await accepted(client, wid, gate, {"answer": "42"})
    view = await settled(client, wid, gate)
    assert (view.state, view.payloadHash) == ("RECEIVED", identity.payload_hash({"answer": "42"}))
    await runs.approve(wid)
    await runs.result(wid)
    (call,) = await runs.rows("select prompt from app.opencode_calls where step_id = 'DecideST'")
    assert "Answer from the user: 42" in call["prompt"]


# Answers -----------------------------------------------------------------------------------------------------------------


async def test_of_many_answers_at_once_each_key_counts_once_and_one_decides(
    runs: Product, client: httpx.AsyncClient, rows: Rows
) -> None:
    wid = await runs.start()
    gate = await runs.prompt(wid)
    given = [(f"key-{number % 10}", YES if number % 2 else NO) for number in range(60)]
    responses = await asyncio.gather(*(answer(client, wid, gate, payload, key) for key, payload in given))
    assert {response.status_code for response in responses} <= {200, 409}
    fresh = [key for (key, _), r in zip(given, responses, strict=True) if r.json() == {"ok": True, "isReplay": False}]
    assert len(fresh) == len(set(fresh)) > 0
    assert {key for key, _ in await rows.fetch(LEDGER, wid)} == set(fresh)
    view = await settled(client, wid, gate)
    assert (view.state, len(await rows.fetch(DECISIONS, wid, f"decision:{gate}"))) == ("RESOLVED", 1)


async def test_a_plan_approved_ahead_leaves_an_answer_in_the_ledger(runs: Product, client: httpx.AsyncClient, rows: Rows) -> None:
    await runs.stop_worker()
    wid = await runs.start()
    await rows.fetch("insert into app.plan_approvals (run_id, approved_by) values (%s, 'po')", identity.run_id(wid))
    await runs.start_worker()
    await runs.result(wid)
    (view,) = [GateView.model_validate(gate) for gate in (await client.get(f"/api/runs/{wid}/gates")).json()]
    assert (view.state, view.origin) == ("RESOLVED", "legacy-approve")
    (entry,) = (await client.get(f"/api/runs/{wid}/interactions")).json()
    row = InteractionRow.model_validate(entry)
    assert row.dedupeKey == f"legacy-plan-approval:{wid}:{view.gateKey}"
    assert (row.topic, row.payloadHash) == (view.topic, view.payloadHash)
    assert len(await runs.engine.messages(wid)) == 1


async def test_an_answer_from_another_process_of_the_engine_is_received(
    runs: Product, client: httpx.AsyncClient, database: str
) -> None:
    wid = await runs.start()
    gate = await runs.prompt(wid)
    async with Engine.connect(database) as other:
        await other.send(wid, {"decision": "approve"}, topic=identity.human_topic(gate))
    view = await settled(client, wid, gate)
    assert (view.state, view.origin) == ("RESOLVED", None)
    assert view.payloadHash == identity.payload_hash({"decision": "approve"})
    await runs.result(wid)


# Second chances ----------------------------------------------------------------------------------------------------------


async def test_a_run_resumed_at_its_gate_takes_answers_again(runs: Product, client: httpx.AsyncClient) -> None:
    wid = await runs.start()
    gate = await runs.prompt(wid)
    await runs.engine.cancel(wid)
    assert (await answer(client, wid, gate, YES)).json() == {"error": "run not waiting for input: canceled"}
    assert await inbox(client) == []
    await runs.engine.resume(wid)
    assert await status(client, wid) == ("WAITING_INPUT", "APPROVE_PLAN")
    assert await inbox(client) == [gate]
    await accepted(client, wid, gate, YES)
    await runs.result(wid)


async def test_a_run_resumed_at_its_question_waits_for_the_answer(runs: Product, client: httpx.AsyncClient) -> None:
    wid = await runs.start(constraints={"askUser": True})
    await runs.prompt(wid, "ask-user", "CompileST")
    await runs.engine.cancel(wid)
    await runs.engine.resume(wid)
    assert await status(client, wid) == ("WAITING_INPUT", None)


async def test_a_run_resumed_just_before_its_gate_opens_it_and_waits(
    runs: Product, client: httpx.AsyncClient, rows: Rows
) -> None:
    wid = await runs.start()
    gate = await runs.prompt(wid)
    await runs.engine.cancel(wid)
    await rows.fetch("delete from app.human_gates")
    (opening,) = [step.function_id for step in await runs.engine.steps(wid) if step.name == "openGate"]
    await runs.stop_worker()
    await runs.engine.rewind(wid, opening)
    assert (await runs.run(wid))["status"] == "running"
    await runs.start_worker()
    assert await runs.prompt(wid) == gate
    await accepted(client, wid, gate, YES)
    await runs.result(wid)


async def test_a_retry_withdraws_the_question_that_was_open_and_asks_again(
    runs: Product, client: httpx.AsyncClient, rows: Rows
) -> None:
    wid = await runs.start()
    gate = await runs.prompt(wid)
    await runs.stop_worker()
    await rows.fetch("update dbos.workflow_status set status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED' where workflow_uuid = %s", wid)
    await retry_run(runs.engine, wid)
    await runs.start_worker()
    again = await runs.prompt(wid, attempt=2)
    assert await inbox(client) == [again]
    before = await rows.counts()
    assert (await answer(client, wid, gate, YES)).status_code == 409
    assert await rows.counts() == before
    await accepted(client, wid, again, YES)
    await runs.result(wid)


async def test_a_fork_at_the_gate_leaves_its_originals_gate_alone(runs: Product, client: httpx.AsyncClient, rows: Rows) -> None:
    wid = await runs.start()
    gate = await runs.prompt(wid)
    fork = await runs.engine.fork(wid, 1)
    assert await runs.engine.get_event(fork, identity.prompt_event(gate), timeout_s=WAIT_S) is not None
    await runs.engine.send(fork, YES, topic=identity.human_topic(gate))
    await runs.result(fork)
    assert await inbox(client) == [gate]
    assert await rows.fetch("select * from app.plan_approvals") == []
    await accepted(client, wid, gate, YES)
    await runs.result(wid)
