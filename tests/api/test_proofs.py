"""Proof cards: one claim each, read off rows, the same card for the same row."""

from typing import Any

import httpx
from psycopg.types.json import Jsonb

from steps.contracts.proof import ProofCard
from tests.api.samples import GATE, RUN_ID, WID, Rows


async def cards(client: httpx.AsyncClient, wid: str = WID) -> list[ProofCard]:
    response = await client.get(f"/api/runs/{wid}/proofs")
    assert response.status_code == 200
    return [ProofCard.model_validate(row) for row in response.json()]


async def artifact(rows: Rows, step_id: str, *, task: str = "", idx: int = 0, attempt: int = 1, at_s: int = 50) -> None:
    await rows.fetch(
        """insert into app.artifacts (run_id, step_id, task_key, idx, attempt, kind, uri, inline, sha256, created_at)
           values (%s, %s, %s, %s, %s, 'log', %s, '{}', %s, to_timestamp(%s))""",
        RUN_ID,
        step_id,
        task,
        idx,
        attempt,
        f"artifact://run/{RUN_ID}/step/{step_id}/task/{task}/log",
        f"{idx}" * 64,
        at_s,
    )


async def a_run(rows: Rows, **columns: Any) -> None:
    await rows.run("succeeded", workflow_status="SUCCESS")
    await rows.fetch(
        """update app.runs set created_at = to_timestamp(10), updated_at = to_timestamp(90), intent_hash = %s, recipe_id = 'r',
                  recipe_v = '1', recipe_hash = 'h', queue_partition_key = 'tenant-1', budget = %s""",
        "a" * 64,
        Jsonb(columns.get("budget")) if columns.get("budget") else None,
    )
    await rows.fetch("update dbos.workflow_status set updated_at = 80000, application_version = 'v1', recovery_attempts = 1")
    await rows.fetch(
        """insert into app.run_steps (run_id, step_id, phase, attempt, finished_at)
           values (%s, 'CompileST', 'compilation', 1, to_timestamp(20)), (%s, 'CompileST', 'compilation', 2, to_timestamp(30))""",
        RUN_ID,
        RUN_ID,
    )


async def test_a_run_has_a_card_for_each_thing_that_is_recorded_newest_first(client: httpx.AsyncClient, rows: Rows) -> None:
    await a_run(rows, budget={"maxFanout": 2})
    await artifact(rows, "ExecuteST", task="t")
    told = [(card.id.removeprefix(f"proof-{WID}-"), card.source, card.ts, card.provenance) for card in await cards(client)]
    assert told == [
        ("status", "sql", 90_000, "app.runs"),
        ("workflow", "dbos", 80_000, "dbos.workflow_status"),
        ("art-ExecuteST-t-0-1", "artifact", 50_000, "app.artifacts"),
        ("step-CompileST-2", "sql", 30_000, "app.run_steps"),
        ("step-CompileST-1", "sql", 20_000, "app.run_steps"),
        ("answers", "sql", 10_000, "app.human_interactions"),
        ("budget", "sql", 10_000, "app.runs.budget"),
        ("effects", "sql", 10_000, "app.mock_receipts"),
        ("identity", "sql", 10_000, "app.runs"),
        ("partition", "sql", 10_000, "app.runs.queue_partition_key"),
    ]
    evidence = {card.id.rpartition("-")[2]: card.evidence for card in await cards(client)}
    assert evidence["identity"] == f"workflowID={WID} intentHash={'a' * 64} recipe=r@1 h"
    assert evidence["budget"] == '{"maxFanout":2}'
    assert evidence["workflow"] == "status=SUCCESS version=v1 attempts=1"


async def test_the_same_rows_are_the_same_cards_under_either_id(client: httpx.AsyncClient, rows: Rows) -> None:
    await a_run(rows)
    first = await cards(client)
    assert first == await cards(client, RUN_ID)
    assert all(card.sourceTs == card.ts for card in first)


async def test_no_two_cards_share_an_id(client: httpx.AsyncClient, rows: Rows) -> None:
    await a_run(rows)
    for step_id, task, idx, attempt in (("A", "", 0, 1), ("B", "", 0, 1), ("A", "t", 0, 1), ("A", "", 1, 1), ("A", "", 0, 2)):
        await artifact(rows, step_id, task=task, idx=idx, attempt=attempt)
    ids = [card.id for card in await cards(client)]
    assert len(ids) == len(set(ids)) == 14


async def test_the_ledgers_are_counted(client: httpx.AsyncClient, rows: Rows) -> None:
    await a_run(rows)
    await rows.gate()
    await rows.fetch(
        """insert into app.human_interactions (workflow_id, run_id, gate_key, topic, dedupe_key, payload_hash, payload, origin)
           values (%s, %s, %s, 'human:x', 'k', %s, '{}', 'manual')""",
        WID,
        RUN_ID,
        GATE,
        "a" * 64,
    )
    await rows.fetch(
        """insert into app.mock_receipts (receipt_key, run_id, step_id, payload_hash, first_attempt, last_attempt, seen_count,
                                          request_payload)
           values ('one', %s, 'ExecuteST', 'h', 1, 1, 1, '{}'), ('two', %s, 'ExecuteST', 'h', 1, 2, 2, '{}')""",
        RUN_ID,
        RUN_ID,
    )
    evidence = {card.id.rpartition("-")[2]: card.evidence for card in await cards(client)}
    assert (evidence["answers"], evidence["effects"]) == ("answers=1 of which twice=0", "effects=2 of which twice=1")


async def test_a_bare_run_has_cards_and_an_unknown_one_has_none(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("retries_exceeded")
    await rows.fetch("delete from dbos.workflow_status")
    await rows.fetch("update app.runs set error = 'it broke'")
    told = {card.id.rpartition("-")[2]: card for card in await cards(client)}
    assert "workflow" not in told
    assert (told["status"].claim, told["status"].evidence) == (
        "the run is retries_exceeded",
        "status=retries_exceeded error=it broke",
    )
    assert (told["identity"].claim, told["budget"].claim) == ("the run is named by its intent's id", "the run has no budget")
    assert await cards(client, "nobody") == []
