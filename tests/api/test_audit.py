"""What operators look through and look back on: pages of workflows, counts, what may be done, pauses and the trail that they leave."""

from typing import Any

import httpx
import pytest

from engine import Engine
from steps.contracts.ops import Op
from steps.ops import refusal_of
from tests.api.samples import WID, Rows
from tests.api.test_ops import STATES, WHO, made, step


async def ids(client: httpx.AsyncClient, query: str) -> list[str]:
    answer = await client.get(f"/api/ops/wf?{query}")
    assert answer.status_code == 200, answer.text
    return [row["workflowID"] for row in answer.json()]


# Pages, filters, counts --------------------------------------------------------------------------------------------------


async def test_pages_follow_each_other_without_a_gap_or_a_repetition(client: httpx.AsyncClient, rows: Rows) -> None:
    for number in range(11):
        await made(rows, f"w.{number:02}/ü", created_at=1000 + number // 4)  # several of one moment
    path, found, cursors = "/api/ops/wf?limit=3", [], 0
    while True:
        answer = await client.get(path)
        found += [row["workflowID"] for row in answer.json()]
        if "x-cursor" not in answer.headers:
            break
        cursors += 1
        path = f"/api/ops/wf?limit=3&cursor={answer.headers['x-cursor']}"
        await made(rows, f"later-{cursors}", created_at=5000)  # what is made meanwhile does not move the pages
    assert found == await ids(client, "limit=200&before=5000")
    assert (len(found), cursors) == (11, 3)


@pytest.mark.parametrize("path", ["/api/ops/wf", "/api/ops/audit"])
@pytest.mark.parametrize("cursor", ["", "x", "eA", "MS4", "!!!!", "MS4AAA"])
async def test_what_is_no_cursor_is_refused(client: httpx.AsyncClient, path: str, cursor: str) -> None:
    assert (await client.get(f"{path}?cursor={cursor}")).status_code == 400


async def test_a_list_is_narrowed_by_queue_id_and_time(client: httpx.AsyncClient, rows: Rows) -> None:
    await made(rows, "a-1", created_at=1000, queue="sbxQ")
    await made(rows, "a-2", created_at=2000)
    await made(rows, "b_%", created_at=3000)
    assert await ids(client, "queueName=sbxQ") == ["a-1"]
    assert await ids(client, "id=a-") == ["a-2", "a-1"]
    assert await ids(client, "id=%25") == []
    assert await ids(client, "after=2000&before=3000") == ["a-2"]
    assert (await client.get("/api/ops/wf?after=soon")).status_code == 400


async def test_a_run_is_listed_with_what_it_is_for(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await made(rows, "chore")
    await client.post("/api/ops/wf/chore/cancel", json=WHO)  # which gives it a run, for the audit
    await made(rows, "task")
    await made(rows, "copy")
    await rows.fetch("update dbos.workflow_status set parent_workflow_id = %s where workflow_uuid = 'task'", WID)
    await rows.fetch("update dbos.workflow_status set forked_from = %s where workflow_uuid = 'copy'", WID)
    await made(rows, "task of the copy")
    await rows.fetch("update dbos.workflow_status set parent_workflow_id = 'copy' where workflow_uuid = 'task of the copy'")
    listed = {row["workflowID"]: row.get("subject") for row in (await client.get("/api/ops/wf")).json()}
    assert listed == {WID: "sample", "chore": None, "task": "sample", "copy": "sample", "task of the copy": "sample"}


async def test_states_are_counted_each_by_itself(client: httpx.AsyncClient, rows: Rows) -> None:
    for number, state in enumerate(STATES):
        for copy in range(number):
            await made(rows, f"{state}-{copy}", state, queue="sbxQ" if copy else "controlQ")

    async def counted(query: str = "") -> dict[str, int]:
        return {row["status"]: row["workflowCount"] for row in (await client.get(f"/api/ops/counts{query}")).json()}

    assert await counted() == {state: number for number, state in enumerate(STATES)}
    assert await counted("?queueName=controlQ") == {state: min(number, 1) for number, state in enumerate(STATES)}
    assert (await client.get("/api/ops/counts?status=ERROR")).status_code == 400


# What may be done ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
async def test_a_workflow_says_what_may_be_done_to_it_and_keeps_its_word(
    client: httpx.AsyncClient, rows: Rows, state: str
) -> None:
    for op in ("cancel", "resume", "fork"):
        await made(rows, op, state)
        await step(rows, op, 1)
        promised = {one["op"]: one for one in (await client.get(f"/api/ops/wf/{op}")).json()["actions"]}
        assert list(promised) == ["cancel", "resume", "fork"]
        assert promised["fork"]["maxStep"] == 1
        answer = await client.post(f"/api/ops/wf/{op}/{op}", json=WHO | ({"stepN": 1} if op == "fork" else {}))
        assert (answer.status_code == 202) == promised[op]["allowed"]
        assert answer.json().get("error") == promised[op].get("error")


def test_a_fork_needs_a_record() -> None:
    op: Op = "fork"
    assert refusal_of(op, "SUCCESS") == "fork stepN 1 exceeds max step 0"


# Pauses and the trail -------------------------------------------------------------------------------------------------------


async def trail(client: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await client.get(f"/api/ops/audit{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_queue_is_paused_and_resumed_and_who_did_it_is_kept(client: httpx.AsyncClient) -> None:
    paused = await client.post("/api/ops/queues/intentQ/pause", json=WHO)
    assert (paused.status_code, paused.json()["queueName"], paused.json()["paused"]) == (200, "intentQ", True)
    part = await client.post("/api/ops/queues/intentQ/pause", json=WHO | {"partitionKey": "blue"})
    assert (part.json()["partitionKey"], part.json()["state"]) == ("blue", "paused")
    listed = (await client.get("/api/ops/queues/intentQ/partitions")).json()
    assert [(row["partitionKey"], row["state"]) for row in listed] == [("blue", "paused")]
    assert (await client.get("/api/ops/queues/intentQ/partitions?after=blue")).json() == []
    resumed = await client.post("/api/ops/queues/intentQ/resume", json=WHO)
    assert resumed.json()["paused"] is False
    rows = await trail(client)
    assert [(row["op"], row["queueName"], row.get("partitionKey"), row["actor"], row["reason"]) for row in rows] == [
        ("resume", "intentQ", None, "ada", "drill"),
        ("pause", "intentQ", "blue", "ada", "drill"),
        ("pause", "intentQ", None, "ada", "drill"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/ops/queues/intentQ/pause", {"actor": "ada"}, 400),
        ("/api/ops/queues/intentQ/pause", WHO | {"reason": " "}, 400),
        ("/api/ops/queues/intentQ/pause", WHO | {"more": 1}, 400),
        ("/api/ops/queues/intentq/pause", WHO, 404),
        ("/api/ops/queues/intentQ/resume", WHO, 409),
        ("/api/ops/queues/intentQ/resume", WHO | {"partitionKey": "nobody"}, 404),
        ("/api/ops/workers/nobody/pause", WHO, 404),
        ("/api/ops/workers/nobody/resume", {}, 400),
    ],
)
async def test_a_pause_that_is_refused_leaves_no_trace(
    client: httpx.AsyncClient, rows: Rows, path: str, body: dict[str, Any], status: int
) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert await trail(client) == []
    assert await rows.value("select count(*) from engine.queue where paused") == 0


async def test_a_worker_is_listed_paused_and_resumed(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.fetch(
        """insert into engine.worker (id, place, version, started_at_ms, lease_until_ms)
           values ('w1', 'here:1', 'v7', 1, engine.now_ms() + 60000), ('gone', 'here:2', 'v6', 1, 2)"""
    )
    workers = (await client.get("/api/ops/workers")).json()
    assert [(row["workerID"], row["version"], row["paused"], row["atWork"]) for row in workers] == [("w1", "v7", False, 0)]
    assert (await client.post("/api/ops/workers/w1/pause", json=WHO)).json()["paused"] is True
    assert (await client.post("/api/ops/workers/w1/resume", json=WHO)).json()["paused"] is False
    assert (await client.post("/api/ops/workers/gone/pause", json=WHO)).status_code == 404
    assert [(row["op"], row["workerID"]) for row in await trail(client)] == [("resume-worker", "w1"), ("pause-worker", "w1")]


async def test_the_trail_has_everything_in_one_order_and_in_pages(client: httpx.AsyncClient, rows: Rows) -> None:
    await made(rows, "one")
    await client.post("/api/ops/wf/one/cancel", json=WHO)
    await client.post("/api/ops/queues/sbxQ/pause", json=WHO)
    await client.post("/api/ops/wf/one/resume", json=WHO | {"reason": "again"})
    whole = await trail(client)
    assert [row["op"] for row in whole] == ["resume", "pause", "cancel"]
    assert (whole[0]["targetWorkflowID"], whole[0]["reason"], "queueName" in whole[0]) == ("one", "again", False)
    paged: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = await client.get(f"/api/ops/audit?limit=1{cursor}")
        paged += answer.json()
        if "x-cursor" not in answer.headers:
            break
        cursor = f"&cursor={answer.headers['x-cursor']}"
    assert paged == whole


async def test_what_operators_did_to_queues_cannot_be_changed(client: httpx.AsyncClient, rows: Rows) -> None:
    await client.post("/api/ops/queues/sbxQ/pause", json=WHO)
    for change in ("update app.queue_actions set actor = 'eve'", "delete from app.queue_actions"):
        with pytest.raises(Exception, match="append-only"):
            await rows.fetch(change)


# How work flows ---------------------------------------------------------------------------------------------------------------


async def test_the_flow_counts_what_waits_what_moves_and_what_is_held_back(
    client: httpx.AsyncClient, rows: Rows, engine: Engine
) -> None:
    now = int(await rows.value("select engine.now_ms()"))
    await made(rows, "waits", "ENQUEUED", queue="sbxQ", created_at=now - 90_000)
    await made(rows, "ended", "SUCCESS", queue="sbxQ", created_at=now - 90_000)
    await made(rows, "broke", "ERROR", queue="sbxQ", created_at=now - 90_000)
    await made(rows, "old", "SUCCESS", queue="sbxQ", created_at=now - 8 * 3_600_000)
    await rows.fetch("update dbos.workflow_status set completed_at = engine.now_ms() where status in ('SUCCESS', 'ERROR')")
    await rows.fetch(
        """insert into dbos.queues (name, concurrency, rate_limit_max, rate_limit_period_sec) values ('sbxQ', 4, 100, 60)"""
    )
    await rows.run()
    await rows.fetch(
        """insert into app.mock_receipts (receipt_key, run_id, step_id, payload_hash, first_attempt, last_attempt, seen_count,
                                          request_payload)
           select 'k', r.id, 's', 'h', 1, 3, 3, '{}' from app.runs r"""
    )
    flow = (await client.get("/api/ops/flow")).json()
    depth = {row["queueName"]: row for row in flow["queues"]}
    assert (depth["sbxQ"]["queued"], depth["sbxQ"]["atWork"], depth["sbxQ"]["oldestQueuedAt"]) == (1, 0, now - 90_000)
    moved = [row for row in flow["rate"] if row["queueName"] == "sbxQ"]
    assert [sum(row[what] for row in moved) for what in ("made", "ended", "failed")] == [3, 2, 1]
    assert all(row["minute"] % 60_000 == 0 for row in moved)
    limits = {row["metric"]: (row["limit"], row["observed"]) for row in flow["policy"] if row["queueName"] == "sbxQ"}
    assert limits == {"concurrency": (4, 0), "rate": (100, 0)}
    assert {row["what"]: (row["count"], row["absorbed"]) for row in flow["dedupe"]} == {"effects": (1, 2), "keys": (0, 0)}
    assert {row["source"] for name in ("queues", "rate", "policy", "dedupe") for row in flow[name]} == {"sql"}
    assert "app.v_ops_queue_fairness" in flow["queries"]["fairness"]
