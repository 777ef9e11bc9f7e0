"""Answers that name a run and no gate: which gate they go to, what they say there, and that they count once."""

import asyncio
from typing import Any

import httpx
import pytest

from api import legacy
from engine import Engine
from steps.gates import APPROVED_BEFORE
from steps.identity import gate_key, human_topic, payload_hash
from tests.api.samples import GATE, RUN_ID, WID, Rows

ASK = gate_key(RUN_ID, "CompileST", "ask-user", 1)
PARALLEL = [gate_key(RUN_ID, "ApplyPatchST", f"parallel-{number}", 1) for number in (1, 2)]
TERMINAL = ["succeeded", "failed", "retries_exceeded", "canceled"]
LEDGER = "select gate_key, topic, origin, payload, run_id from app.human_interactions order by created_at, gate_key"
MAIL = "select topic, message::json from dbos.notifications order by seq"
APPROVALS = "select run_id, approved_by, notes from app.plan_approvals"
RESOLVE = "update app.human_gates set resolved_at = now() where gate_key = %s"


async def send(client: httpx.AsyncClient, type: str = "input", *, run: str = RUN_ID, **payload: Any) -> httpx.Response:
    return await client.post(f"/runs/{run}/events", json={"type": type, "payload": payload})


async def approve(client: httpx.AsyncClient, by: str = "po", **more: Any) -> httpx.Response:
    return await client.post(f"/runs/{RUN_ID}/approve-plan", json={"approvedBy": by, **more})


# Events -----------------------------------------------------------------------------------------------------------------


async def test_an_event_answers_the_open_gate_and_is_in_the_ledger(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("waiting_input")
    await rows.gate(ASK)
    response = await send(client, answer="42")
    assert (response.status_code, response.json()) == (202, {"accepted": True})
    assert await rows.fetch(LEDGER) == [(ASK, human_topic(ASK), "legacy-event", {"answer": "42"}, RUN_ID)]
    assert await rows.fetch(MAIL) == [(human_topic(ASK), {"answer": "42"})]
    timeline = (await client.get(f"/api/runs/{WID}/interactions")).json()
    assert [(row["origin"], row["payloadHash"]) for row in timeline] == [("legacy-event", payload_hash({"answer": "42"}))]


@pytest.mark.parametrize(
    ("type", "payload", "message"),
    [
        ("input", {"answer": "42"}, {"answer": "42"}),
        ("input", {}, {}),
        ("approve-plan", {}, {"approved": True}),
        ("approve-plan", {"by": "kim"}, {"approved": True, "by": "kim"}),
        ("approve-plan", {"approved": False, "notes": "no"}, {"approved": False, "notes": "no"}),
        ("", {"choice": "yes"}, {"choice": "yes"}),
    ],
)
async def test_what_an_event_says_to_the_run(
    client: httpx.AsyncClient, rows: Rows, type: str, payload: dict[str, Any], message: dict[str, Any]
) -> None:
    await rows.waiting_gate()
    assert (await client.post(f"/runs/{WID}/events", json={"type": type, "payload": payload})).status_code == 202
    assert await rows.fetch(MAIL) == [(human_topic(GATE), message)]


async def test_the_same_event_again_is_no_second_answer(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    responses = await asyncio.gather(*(send(client, choice="yes") for _ in range(10)))
    assert {response.status_code for response in responses} == {202}
    assert len(await rows.fetch(LEDGER)) == len(await rows.fetch(MAIL)) == 1


async def test_an_event_goes_to_the_gate_that_was_opened_last_and_is_still_open(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("waiting_input")
    for key in (ASK, *PARALLEL):
        await rows.gate(key)
    await rows.fetch("update app.human_gates set created_at = 'epoch'")
    await rows.fetch("update app.human_gates set created_at = '1999-01-01' where gate_key = %s", ASK)
    by_age_then_key = [ASK, *sorted(PARALLEL, reverse=True)]
    for key in by_age_then_key:
        await send(client, choice="yes")
        assert (await rows.fetch(MAIL))[-1][0] == human_topic(key)
        await rows.fetch(RESOLVE, key)


@pytest.mark.parametrize("status", ["queued", "running", "repairing", *TERMINAL])
async def test_a_run_that_does_not_wait_takes_no_event_whatever_its_body(
    client: httpx.AsyncClient, rows: Rows, status: str
) -> None:
    await rows.waiting_gate()
    await rows.fetch("update app.runs set status = %s", status)
    before = await rows.counts()
    for body in (b'{"type":"input","payload":{}}', b"{bad", b"{}"):
        response = await client.post(f"/runs/{RUN_ID}/events", content=body)
        assert response.status_code == 409
        assert response.json() == {"error": f"cannot send event to run in status {status}", "status": status}
    assert await rows.counts() == before


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("{bad", "invalid json"),
        ("", "invalid RunEvent: data must have required property"),
        ('{"type": "input"}', "invalid RunEvent: data must have required property 'payload'"),
        ('{"type": 1, "payload": {}}', "invalid RunEvent: data/type must be string"),
        ('{"type": "input", "payload": []}', "invalid RunEvent: data/payload must be object"),
        ('{"type": "input", "payload": {}, "more": 1}', "invalid RunEvent: data must NOT have additional properties"),
        ('{"type": "input", "payload": {"a": "\\u0000"}}', "invalid RunEvent: data"),
    ],
)
async def test_a_malformed_event_is_refused_and_writes_nothing(
    client: httpx.AsyncClient, rows: Rows, body: str, error: str
) -> None:
    await rows.waiting_gate()
    before = await rows.counts()
    response = await client.post(f"/runs/{RUN_ID}/events", content=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(error), response.text
    assert await rows.counts() == before


async def test_an_event_that_comes_before_its_gate_waits_for_it_and_is_woken(
    client: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy, "GATE_WAIT_S", 30.0)
    await rows.run("waiting_input")
    sending = asyncio.create_task(send(client, answer="early"))
    await watched(client)
    await rows.gate(ASK)
    await rows.fetch("select pg_notify('dbos_workflow_events_channel', %s)", f"{WID}::ui:{ASK}")
    async with asyncio.timeout(10):
        assert (await sending).status_code == 202
    assert await rows.fetch(MAIL) == [(human_topic(ASK), {"answer": "early"})]


async def test_an_event_whose_run_moves_on_while_it_waits_is_refused(
    client: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy, "GATE_WAIT_S", 30.0)
    await rows.waiting_gate()
    await rows.fetch(RESOLVE, GATE)
    sending = asyncio.create_task(send(client, answer="late"))
    await watched(client)
    await rows.fetch("update app.runs set status = 'running'")
    await rows.fetch("select pg_notify('dbos_workflow_events_channel', %s)", f"{WID}::decision:{GATE}")
    async with asyncio.timeout(10):
        response = await sending
    assert response.json() == {"error": "cannot send event to run in status running", "status": "running"}
    assert await rows.fetch(MAIL) == []


async def watched(client: httpx.AsyncClient) -> None:
    """Until the front door waits for something."""
    transport: Any = client._transport
    async with asyncio.timeout(10):
        while transport.app.state.door.waits.watcher_count == 0:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("next_action", "key"), [(None, ASK), ("APPROVE_PLAN", GATE)])
async def test_an_event_whose_gate_does_not_open_in_time_is_there_when_it_does(
    client: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch, next_action: str | None, key: str
) -> None:
    monkeypatch.setattr(legacy, "GATE_WAIT_S", 0.0)
    await rows.run("waiting_input")
    await rows.fetch("update app.runs set next_action = %s", next_action)
    assert (await send(client, choice="yes")).status_code == 202
    assert await rows.fetch(MAIL) == [(human_topic(key), {"choice": "yes"})]


async def test_a_question_that_was_answered_takes_no_event(
    client: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy, "GATE_WAIT_S", 0.0)
    await rows.run("waiting_input")
    await rows.gate(ASK)
    await rows.fetch(RESOLVE, ASK)
    before = await rows.counts()
    response = await send(client, answer="42")
    assert (response.status_code, response.json()["status"]) == (409, "waiting_input")
    assert await rows.counts() == before


# Approvals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [f"/runs/{RUN_ID}/approve-plan", f"/api/runs/{WID}/approve-plan"])
async def test_an_approval_is_kept_recorded_and_sent(client: httpx.AsyncClient, rows: Rows, path: str) -> None:
    await rows.waiting_gate()
    response = await client.post(path, json={"approvedBy": "po", "notes": "fine"})
    assert response.status_code == 202
    at = await rows.value(
        "select to_char(approved_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') from app.plan_approvals"
    )
    assert response.json() == {"accepted": True, "runId": RUN_ID, "approvedAt": at}
    yes = {"approved": True, "approvedBy": "po", "notes": "fine"}
    assert await rows.fetch(APPROVALS) == [(RUN_ID, "po", "fine")]
    assert await rows.fetch(LEDGER) == [(GATE, human_topic(GATE), "legacy-approve", yes, RUN_ID)]
    assert await rows.fetch(MAIL) == [(human_topic(GATE), yes)]


@pytest.mark.parametrize("notes", [{}, {"notes": None}])
async def test_an_approval_without_notes_has_none(client: httpx.AsyncClient, rows: Rows, notes: dict[str, Any]) -> None:
    await rows.waiting_gate()
    assert (await approve(client, **notes)).status_code == 202
    assert await rows.fetch(MAIL) == [(human_topic(GATE), {"approved": True, "approvedBy": "po"})]


async def test_approving_again_changes_who_approved_and_answers_nothing_twice(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    for response in await asyncio.gather(*(approve(client, by) for by in ("po", "qa", "po", "qa", "po"))):
        assert response.status_code == 202
    await approve(client, "last")
    assert await rows.fetch(APPROVALS) == [(RUN_ID, "last", None)]
    assert len(await rows.fetch(LEDGER)) == len(await rows.fetch(MAIL)) == 1


@pytest.mark.parametrize("status", ["queued", "running", "repairing", "waiting_input"])
async def test_an_approval_ahead_says_what_the_run_will_say_to_itself(client: httpx.AsyncClient, rows: Rows, status: str) -> None:
    await rows.run(status)
    await rows.gate(ASK)
    assert [(await approve(client, by)).status_code for by in ("po", "qa")] == [202, 202]
    assert await rows.fetch(APPROVALS) == [(RUN_ID, "qa", None)]
    assert await rows.fetch(LEDGER) == [(GATE, human_topic(GATE), "legacy-approve", APPROVED_BEFORE, RUN_ID)]
    assert await rows.fetch(MAIL) == [(human_topic(GATE), APPROVED_BEFORE)]


async def test_an_approval_ahead_of_a_repair_is_for_the_repairs_gate(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("repairing")
    await rows.gate(GATE)
    await rows.fetch(RESOLVE, GATE)
    await rows.fetch("update app.runs set retry_count = 2")
    assert (await approve(client)).status_code == 202
    assert await rows.fetch(MAIL) == [(human_topic(gate_key(RUN_ID, "ApplyPatchST", "approve-plan", 3)), APPROVED_BEFORE)]


async def test_an_approval_of_what_was_decided_is_kept_and_says_nothing(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    await rows.fetch(RESOLVE, GATE)
    assert (await approve(client)).status_code == 202
    assert (await rows.fetch(APPROVALS), await rows.fetch(LEDGER), await rows.fetch(MAIL)) == ([(RUN_ID, "po", None)], [], [])


@pytest.mark.parametrize("status", TERMINAL)
async def test_a_run_that_is_over_keeps_the_approval_and_hears_nothing(
    client: httpx.AsyncClient, rows: Rows, status: str
) -> None:
    await rows.waiting_gate()
    await rows.fetch("update app.runs set status = %s", status)
    assert (await approve(client)).status_code == 202
    assert (await rows.fetch(APPROVALS), await rows.fetch(LEDGER), await rows.fetch(MAIL)) == ([(RUN_ID, "po", None)], [], [])


async def test_two_approvals_answer_two_gates(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("waiting_input")
    for key in PARALLEL:
        await rows.gate(key)
    responses = await asyncio.gather(*(approve(client, by) for by in ("po", "qa", "third")))
    assert {response.status_code for response in responses} == {202}
    assert sorted(topic for topic, _ in await rows.fetch(MAIL)) == sorted(human_topic(key) for key in PARALLEL)


async def test_an_approval_whose_message_fails_is_not_kept(
    client: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows.waiting_gate()
    before = await rows.counts()

    async def failing_send(*_: object, **__: object) -> None:
        raise ConnectionError("the mailbox is out of reach")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "send", failing_send)
        response = await approve(client)
    assert (response.status_code, response.json()) == (500, {"error": "internal error"})
    assert (await rows.counts(), await rows.fetch(APPROVALS)) == (before, [])
    assert (await approve(client)).status_code == 202
    assert len(await rows.fetch(MAIL)) == 1
