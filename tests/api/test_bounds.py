"""What a look costs: as much as is at work now, however much has ended before; or as much as the one run that it is about."""

from typing import Any, LiteralString

import pytest

from steps import proofs, queues, repro, throughput, workflows
from tests.api.plans import rows_read
from tests.api.samples import RUN_ID, Rows

ENDED: LiteralString = """
    insert into dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name, created_at, updated_at)
    select status || n, status, 'Chore', 'Chore', 'controlQ', n, n
      from unnest(array['SUCCESS', 'ERROR', 'CANCELLED']) as status, generate_series(1, 5000) n
"""
LIVE: LiteralString = """
    insert into dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name, executor_id, created_at, updated_at)
    select status || n, status, 'Chore', 'Chore', 'controlQ', case when mod(n, 2) = 0 then 'w' end, n, n
      from unnest(array['ENQUEUED', 'PENDING']) as status, generate_series(1, 10) n
"""
NO_FILTER: dict[str, Any] = {
    "name": None,
    "queue": None,
    "id": None,
    "after": None,
    "before": None,
    "last_at": None,
    "last_id": None,
}
ANY: dict[str, Any] = NO_FILTER | {"status": None, "limit": 20}


@pytest.mark.parametrize(
    ("query", "given"),
    [
        (workflows.NEWEST, ANY),
        (workflows.NEWEST, ANY | {"status": "PENDING", "name": "Chore"}),
        (workflows.NEWEST, ANY | {"status": "ENQUEUED"}),
        (workflows.NEWEST, ANY | {"status": "ERROR"}),
        (workflows.NEWEST, ANY | {"last_at": 2500, "last_id": "ERROR2500"}),
        (workflows.QUEUED, ANY),
        (workflows.FAILED, ANY),
        (workflows.QUEUE_DEPTH, ANY),
        (throughput.FAIRNESS, (1000,)),
        (throughput.PRIORITY, (1000,)),
        (queues.COUNTS, {"names": ["controlQ", "intentQ"], "queued": 1000}),
    ],
    ids=["list", "pending", "enqueued", "error", "page", "queued", "failed", "depth", "fairness", "priority", "queues"],
)
async def test_a_look_at_what_is_live_does_not_read_what_has_ended(rows: Rows, query: LiteralString, given: Any) -> None:
    await rows.fetch(ENDED)
    await rows.fetch(LIVE)
    await rows.fetch("analyze dbos.workflow_status")
    read = await rows_read(rows, "workflow_status", query, given)
    assert 0 < read <= 50, f"{read} rows were read"


OTHERS: LiteralString = """
    with ids as (select 'other' || n as id from generate_series(1, 5000) n),
    intents as (insert into app.intents (id, goal, payload) select id, 'g', '{}' from ids),
    runs as (insert into app.runs (id, intent_id, workflow_id, status) select id, id, id, 'succeeded' from ids)
    insert into app.mock_receipts (receipt_key, run_id, step_id, payload_hash, first_attempt, last_attempt, request_payload)
    select id, id, 'ExecuteST', 'h', 1, 1, '{}' from ids
"""


@pytest.mark.parametrize(
    ("table", "query", "given"),
    [("mock_receipts", proofs.ONCE, (RUN_ID,)), ("workflow_status", repro.ROLLBACKS, (RUN_ID,))],
    ids=["receipts", "rollbacks"],
)
async def test_what_is_looked_up_for_one_run_does_not_read_what_others_left(
    rows: Rows, table: str, query: LiteralString, given: Any
) -> None:
    await rows.run()
    await rows.fetch("update app.runs set created_at = 'epoch'")
    await rows.fetch(ENDED)
    await rows.fetch(OTHERS)
    await rows.fetch("analyze dbos.workflow_status, app.mock_receipts, app.runs")
    assert await rows_read(rows, table, query, given) <= 5
