"""Gates over HTTP: what they show, and which answers count."""

import asyncio
from typing import Any

import httpx
import pytest

from engine import Engine
from steps.contracts.gate import GateView, InteractionRow
from steps.identity import human_topic, payload_hash, run_id
from tests.api.samples import GATE, WID, YES, Rows, changed

REPLY = f"/api/runs/{WID}/gates/{GATE}/reply"
EVENT: dict[str, Any] = {"workflowId": WID, "gateKey": GATE, "topic": human_topic(GATE)} | changed(YES, origin="webhook")
LEDGER = "select dedupe_key, topic, origin, payload_hash, run_id from app.human_interactions"
MAIL = "select topic, message, serialization from dbos.notifications where destination_uuid = %s"


async def reply(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await client.post(REPLY, json=changed(YES, **changes))


async def send_event(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await client.post("/api/events/hitl", json=changed(EVENT, **changes))


# Views


async def test_an_open_gate_is_pending(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    listed = (await client.get(f"/api/runs/{WID}/gates")).json()
    assert len(listed) == 1
    gate = GateView.model_validate(listed[0])
    assert (gate.workflowID, gate.gateKey, gate.topic, gate.state) == (
        WID,
        GATE,
        human_topic(GATE),
        "PENDING",
    )
    assert (gate.createdAt, gate.deadlineAt, gate.result, gate.origin) == (1_000, 61_000, None, None)
    assert (await client.get(f"/api/runs/{WID}/gates/{GATE}?timeoutS=0")).json() == listed[0]
    assert (await client.get(f"/api/runs/{run_id(WID)}/gates")).json() == listed


async def test_a_gate_is_shown_from_its_prompt_on(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    await rows.fetch("delete from dbos.workflow_events")
    assert (await client.get(f"/api/runs/{WID}/gates")).json() == []
    response = await client.get(f"/api/runs/{WID}/gates/{GATE}?timeoutS=0")
    assert (response.status_code, response.json()) == (404, {"error": "gate not found"})


@pytest.mark.parametrize(
    ("result", "decision", "state"),
    [("RECEIVED", None, "RECEIVED"), ("RECEIVED", "yes", "RESOLVED"), ("TIMED_OUT", "no", "TIMED_OUT")],
)
async def test_a_gate_shows_what_came_of_it(
    client: httpx.AsyncClient, rows: Rows, result: str, decision: str | None, state: str
) -> None:
    await rows.waiting_gate()
    await reply(client)
    await rows.event(f"ui:{GATE}:result", {"schemaVersion": 1, "state": result, "payload": {"choice": "yes"}})
    if decision:
        await rows.event(f"decision:{GATE}", {"schemaVersion": 1, "decision": decision, "at": 2_000})
    gate = GateView.model_validate((await client.get(f"/api/runs/{WID}/gates/{GATE}?timeoutS=0")).json())
    assert (gate.state, gate.origin) == (state, "manual")
    assert gate.payloadHash == payload_hash({"choice": "yes"})


async def test_an_unknown_run_has_no_gates_and_no_interactions(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/runs/none/gates")).json() == []
    assert (await client.get("/api/runs/none/interactions")).json() == []
    response = await client.get(f"/api/runs/none/gates/{GATE}?timeoutS=30")
    assert (response.status_code, response.json()) == (404, {"error": "gate not found"})


@pytest.mark.parametrize("timeout", ["99", "31", "abc", "-1", "1.5", "1e9", "nan", "0x1", "1_0"])
async def test_a_timeout_out_of_bounds_is_refused_even_for_an_unknown_run(client: httpx.AsyncClient, timeout: str) -> None:
    response = await client.get(f"/api/runs/none/gates/{GATE}?timeoutS={timeout}")
    assert response.status_code == 400
    assert response.json()["error"].startswith("invalid HitlGateGetQuery: data/timeoutS must be")


async def test_other_query_keys_and_an_empty_timeout_are_accepted(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    for query in ("timeoutS=", "timeoutS=0&more=1", "timeoutS=0.0", ""):
        assert (await client.get(f"/api/runs/{WID}/gates/{GATE}?{query}")).status_code == 200


@pytest.mark.parametrize("key", ["UPPER", "a b", "-a", "a" * 129, "a.b"])
async def test_a_malformed_gate_key_is_refused(client: httpx.AsyncClient, rows: Rows, key: str) -> None:
    before = await rows.counts()
    for response in (
        await client.get(f"/api/runs/{WID}/gates/{key}"),
        await client.post(f"/api/runs/{WID}/gates/{key}/reply", json=YES),
    ):
        assert response.status_code == 400
        assert response.json()["error"].startswith("invalid HitlGateKey: data/gateKey must")
    assert await rows.counts() == before


async def test_gates_are_listed_in_the_order_of_their_opening(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    for key in ("b", "a"):
        await rows.gate(key)
    await rows.fetch("update app.human_gates set created_at = 'epoch' where gate_key in ('a', 'b')")
    assert [gate["gateKey"] for gate in (await client.get(f"/api/runs/{WID}/gates")).json()] == [
        "a",
        "b",
        GATE,
    ]


# Replies


async def test_a_reply_is_recorded_and_sent(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    response = await reply(client)
    assert (response.status_code, response.json()) == (200, {"ok": True, "isReplay": False})
    assert await rows.fetch(LEDGER) == [("key-1", human_topic(GATE), "manual", payload_hash(YES["payload"]), run_id(WID))]
    assert await rows.fetch(MAIL, WID) == [(human_topic(GATE), '{"choice":"yes"}', "portable_json")]


async def test_the_same_reply_again_is_a_replay_and_is_sent_once(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    assert [(await reply(client)).json()["isReplay"] for _ in range(3)] == [False, True, True]
    assert len(await rows.fetch(LEDGER)) == len(await rows.fetch(MAIL, WID)) == 1


@pytest.mark.parametrize("status", ["running", "succeeded", "retries_exceeded", "canceled"])
async def test_a_recorded_reply_is_agreed_to_even_after_the_run_has_moved_on(
    client: httpx.AsyncClient, rows: Rows, status: str
) -> None:
    await rows.waiting_gate()
    await reply(client)
    await rows.fetch("update app.runs set status = %s", status)
    before = await rows.counts()
    assert (await reply(client)).json() == {"ok": True, "isReplay": True}
    other = await reply(client, payload__choice="no")
    assert other.status_code == 409
    assert other.json() == {"error": f"dedupeKey conflict: different payload/topic for {GATE}"}
    assert await rows.counts() == before


@pytest.mark.parametrize("status", ["queued", "running", "succeeded", "failed", "retries_exceeded", "canceled"])
async def test_a_new_reply_to_a_run_that_does_not_wait_is_refused_and_writes_nothing(
    client: httpx.AsyncClient, rows: Rows, status: str
) -> None:
    await rows.waiting_gate()
    await rows.fetch("update app.runs set status = %s", status)
    before = await rows.counts()
    for response in (await reply(client), await send_event(client)):
        assert response.status_code == 409
        assert response.json() == {"error": f"run not waiting for input: {status}"}
    assert await rows.counts() == before


async def test_a_run_that_the_engine_ended_takes_no_reply(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    await rows.fetch("update dbos.workflow_status set status = 'CANCELLED'")
    before = await rows.counts()
    assert (await reply(client)).status_code == 409
    assert await rows.counts() == before


async def test_a_settled_gate_takes_no_new_reply(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    await reply(client)
    await rows.fetch("update app.human_gates set resolved_at = now()")
    before = await rows.counts()
    assert (await reply(client, dedupeKey="key-2")).status_code == 409
    assert (await reply(client)).json()["isReplay"] is True
    assert await rows.counts() == before


async def test_equal_replies_at_once_are_recorded_and_sent_once(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    responses = await asyncio.gather(*(reply(client) for _ in range(30)))
    assert [response.status_code for response in responses] == [200] * 30
    assert sorted(response.json()["isReplay"] for response in responses) == [False] + [True] * 29
    assert len(await rows.fetch(LEDGER)) == len(await rows.fetch(MAIL, WID)) == 1


async def test_different_replies_at_once_under_one_key_are_recorded_once(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    answers = [{"choice": "yes"}, {"choice": "no"}] * 10
    responses = await asyncio.gather(*(reply(client, payload=payload) for payload in answers))
    assert sorted({response.status_code for response in responses}) == [200, 409]
    assert len(await rows.fetch(LEDGER)) == len(await rows.fetch(MAIL, WID)) == 1


async def test_a_reply_to_an_unknown_run_or_gate_is_not_found_and_writes_nothing(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("waiting_input")
    before = await rows.counts()
    no_run = await client.post(f"/api/runs/none/gates/{GATE}/reply", json=YES)
    assert (no_run.status_code, no_run.json()) == (404, {"error": "workflow not found: none"})
    no_gate = await reply(client)
    assert (no_gate.status_code, no_gate.json()) == (
        404,
        {"error": f"workflow not found: {WID}/gates/{GATE}"},
    )
    assert (await send_event(client)).status_code == 404
    assert await rows.counts() == before


@pytest.mark.parametrize("missing", ["payload", "dedupeKey", "origin"])
async def test_a_reply_without_one_of_its_parts_is_refused(client: httpx.AsyncClient, rows: Rows, missing: str) -> None:
    await rows.waiting_gate()
    before = await rows.counts()
    response = await client.post(REPLY, json={key: value for key, value in YES.items() if key != missing})
    assert response.status_code == 400
    assert response.json()["error"] == f"invalid HitlGateReply: data must have required property '{missing}'"
    assert await rows.counts() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": "yes"},
        {"payload": None},
        {"dedupeKey": ""},
        {"dedupeKey": "k" * 257},
        {"dedupeKey": "a\nb"},
        {"dedupeKey": "a\x00b"},
        {"origin": "engine-dbos"},
        {"origin": "somebody"},
        {"more": 1},
    ],
)
async def test_a_malformed_reply_is_refused_and_writes_nothing(
    client: httpx.AsyncClient, rows: Rows, changes: dict[str, Any]
) -> None:
    await rows.waiting_gate()
    before = await rows.counts()
    assert (await reply(client, **changes)).status_code == 400
    assert await rows.counts() == before


async def test_the_body_is_checked_before_the_run(client: httpx.AsyncClient) -> None:
    assert (await client.post(f"/api/runs/none/gates/{GATE}/reply", json={})).status_code == 400
    assert (await send_event(client, origin="nobody", workflowId="none")).status_code == 400


async def test_a_reply_whose_message_fails_leaves_nothing_and_works_when_tried_again(
    client: httpx.AsyncClient, rows: Rows, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows.waiting_gate()
    before = await rows.counts()

    async def failing_send(*_: object, **__: object) -> None:
        raise ConnectionError("the mailbox is out of reach")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "send", failing_send)
        response = await reply(client)
    assert (response.status_code, response.json()) == (500, {"error": "internal error"})
    assert await rows.counts() == before
    assert (await reply(client)).json() == {"ok": True, "isReplay": False}
    assert len(await rows.fetch(MAIL, WID)) == 1


# Events from outside


async def test_an_event_is_recorded_and_sent_like_a_reply(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    response = await send_event(client)
    assert (response.status_code, response.json()) == (200, {"ok": True})
    assert [row[:3] for row in await rows.fetch(LEDGER)] == [("key-1", human_topic(GATE), "webhook")]
    assert len(await rows.fetch(MAIL, WID)) == 1


async def test_a_reply_and_an_event_with_one_key_are_one_answer(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    assert (await send_event(client, origin="engine-dbos")).status_code == 200
    assert (await reply(client)).json() == {"ok": True, "isReplay": True}
    assert (await reply(client, payload__choice="no")).status_code == 409
    assert len(await rows.fetch(LEDGER)) == 1


async def test_a_topic_of_another_gate_is_a_conflict_before_the_run_is_looked_up(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    before = await rows.counts()
    for workflow_id in (WID, "none"):
        response = await send_event(client, topic="human:wrong", workflowId=workflow_id)
        assert (response.status_code, response.json()) == (409, {"error": f"topic/gate mismatch for {GATE}"})
    assert await rows.counts() == before


async def test_a_system_topic_that_is_not_the_gates_is_a_conflict(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    response = await send_event(client, topic=f"sys:{GATE}")
    assert (response.status_code, response.json()) == (409, {"error": f"gate topic mismatch for {GATE}"})
    await send_event(client)
    response = await send_event(client, topic=f"sys:{GATE}")
    assert response.json() == {"error": f"dedupeKey conflict: different payload/topic for {GATE}"}
    assert len(await rows.fetch(LEDGER)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"workflowId": ""},
        {"gateKey": "UPPER"},
        {"topic": "other:x"},
        {"topic": "human:"},
        {"topic": "human:" + "a" * 127},
        {"payload": []},
        {"dedupeKey": ""},
        {"origin": "poller-ci"},
        {"more": 1},
    ],
)
async def test_a_malformed_event_is_refused_and_writes_nothing(
    client: httpx.AsyncClient, rows: Rows, changes: dict[str, Any]
) -> None:
    await rows.waiting_gate()
    before = await rows.counts()
    response = await send_event(client, **changes)
    assert response.status_code == 400
    assert response.json()["error"].startswith("invalid ExternalEvent: data")
    assert await rows.counts() == before


# Interactions


async def test_interactions_are_listed_oldest_first_up_to_the_limit(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    for number in range(3):
        await reply(client, dedupeKey=f"key-{number}")
    listed = [InteractionRow.model_validate(row) for row in (await client.get(f"/api/runs/{WID}/interactions")).json()]
    assert [row.dedupeKey for row in listed] == ["key-0", "key-1", "key-2"]
    limited = (await client.get(f"/api/runs/{run_id(WID)}/interactions?limit=2")).json()
    assert [row["dedupeKey"] for row in limited] == ["key-0", "key-1"]


async def test_answers_of_people_and_of_programs_stand_in_one_line(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    await reply(client, dedupeKey="person")
    await send_event(client, dedupeKey="webhook", origin="webhook-ci")
    await reply(client, dedupeKey="person again", origin="api-shim")
    listed = (await client.get(f"/api/runs/{WID}/interactions")).json()
    assert [(row["dedupeKey"], row["origin"]) for row in listed] == [
        ("person", "manual"),
        ("webhook", "webhook-ci"),
        ("person again", "api-shim"),
    ]
    assert {row["topic"] for row in listed} == {human_topic(GATE)}


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "more=1"])
async def test_a_limit_out_of_bounds_is_refused(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/api/runs/{WID}/interactions?{query}")
    assert response.status_code == 400
    assert response.json()["error"].startswith("invalid HitlInteractionsQuery: data")
