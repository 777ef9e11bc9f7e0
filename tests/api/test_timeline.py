"""The timeline of a huge run costs what its rows cost, and no more."""

from typing import Any, LiteralString

import httpx

from api.timeline import ROWS, STEP_NAMES
from tests.api.plans import nodes
from tests.api.samples import RUN_ID, WID, Rows

TASKS = 10_000
PAGE = 200
#: Rows that pass through the plan's nodes for each that the run has: a join by comparing every pair would take thousands.
MOST_FOR_EACH = 40

FAN_OUT: tuple[LiteralString, ...] = (
    """insert into dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name, serialization, created_at, updated_at,
                                         started_at_epoch_ms, completed_at, parent_workflow_id)
       select 'task-' || n || ':1', 'SUCCESS', 'ExecuteTask', 'IntentWorkflow', 'sbxQ', 'portable_json', n, n, n, n + 1, %(wid)s
         from generate_series(1, %(tasks)s) n""",
    """insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, child_workflow_id, output, serialization)
       select %(wid)s, n + 1, 'IntentWorkflow.ExecuteTask', 'task-' || n || ':1', '1', 'portable_json'
         from generate_series(1, %(tasks)s) n""",
    """insert into app.sbx_runs (run_id, step_id, task_key, attempt, provider, request, err_code)
       select %(run_id)s, 'ExecuteST', 'task-' || n, a, 'mock', '{"cmd": "true"}', 'NONE'
         from generate_series(1, %(tasks)s) n, generate_series(1, 2) a""",
    """insert into app.human_gates (run_id, gate_key, topic, created_at)
       select %(run_id)s, 'gate-' || n, 'human:gate', now() from generate_series(1, 50) n""",
)
#: Other runs, with a few records and tasks each: the usual thing, which the tables' statistics know of.
USUAL: tuple[LiteralString, ...] = (
    """insert into dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name, serialization, created_at, updated_at,
                                         parent_workflow_id)
       select 'usual-' || n || '-' || c, 'SUCCESS', 'ExecuteTask', 'IntentWorkflow', 'sbxQ', 'portable_json', n, n, 'usual-' || n
         from generate_series(1, 2000) n, generate_series(1, 3) c""",
    """insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, child_workflow_id, output, serialization)
       select 'usual-' || n, c, 'ExecuteTask', 'usual-' || n || '-' || c, '1', 'portable_json'
         from generate_series(1, 2000) n, generate_series(1, 3) c""",
)


async def fan_out(rows: Rows) -> None:
    given = {"wid": WID, "run_id": RUN_ID, "tasks": TASKS}
    async with rows.engine.transaction() as conn:
        await conn.execute("set local session_replication_role = replica")
        for statement in USUAL:
            await conn.execute(statement)
        await conn.execute("analyze dbos.workflow_status, dbos.operation_outputs")
        for statement in FAN_OUT:
            await conn.execute(statement, given)


async def work(rows: Rows, **asked: Any) -> int:
    """How many rows pass through all nodes of the statement's plan, those that a node looks at in vain included."""
    given = {"after": -1, "kind": None, "step_id": None, "by_seq": False, "offset": 0, "limit": PAGE} | asked
    given |= {"run_id": RUN_ID, "steps": list(STEP_NAMES)}
    async with rows.engine.transaction() as conn:
        cursor = await conn.execute(b"explain (analyze, timing off, format json) " + ROWS.encode(), given, prepare=False)
        row = await cursor.fetchone()
    assert row is not None
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0))
        * node["Actual Loops"]
        for node in nodes(row[0][0]["Plan"])
    )


async def test_ten_thousand_tasks_take_as_much_work_each_as_a_few(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await fan_out(rows)
    assert await work(rows) < MOST_FOR_EACH * TASKS, "as the table's statistics are before anybody has looked"
    await rows.fetch("analyze dbos.workflow_status, dbos.operation_outputs, app.sbx_runs")
    assert await work(rows) < MOST_FOR_EACH * TASKS
    assert await work(rows, after=TASKS - 100, by_seq=True) < MOST_FOR_EACH * TASKS
    page = (await client.get(f"/api/runs/{WID}/steps?limit={PAGE}&offset=1000")).json()
    assert (page["total"], len(page["steps"])) == (TASKS + 50, PAGE)
    assert {row["attempt"] for row in page["steps"] if row["kind"] == "child"} == {2}
