"""Figures about all runs: who holds the queues, how long a class waits, which budgets stopped runs, how templates do.

Each row says where it was read. Rows come in an order of their own, so two looks at the same state give the same answer.
"""

from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from steps.contracts.base import JsonObject
from steps.contracts.proof import BudgetRow, FairnessRow, K6Row, PriorityRow, TemplateRow, Throughput
from steps.queues import STANDINGS
from steps.repro import snapshot

MOST_BUDGETS = 200
MOST_ROWS = 1000

FAIRNESS: LiteralString = """
    select f.queue_name as "queueName", f.queue_partition_key as "partitionKey", f.status, f.workflow_count as "workflowCount",
           f.oldest_created_at as "oldestCreatedAt", f.newest_created_at as "newestCreatedAt",
           coalesce(p.weight, 1) as weight, p.state,
           'sql' as source, 'app.v_ops_queue_fairness' as provenance, '/api/ops/wf?status=' || f.status as "rawRef"
      from app.v_ops_queue_fairness f
      left join engine.queue_partition p on p.queue = f.queue_name and p.key = coalesce(f.queue_partition_key, '')
     order by f.queue_name, f.queue_partition_key nulls first, f.status
     limit %s
"""
PRIORITY: LiteralString = """
    select p.queue_name as "queueName", p.priority, p.status, p.workflow_count as "workflowCount",
           round(p.avg_latency_ms, 1)::float8 as "avgLatencyMs",
           'sql' as source, 'app.v_ops_queue_priority' as provenance, '/api/ops/wf?status=' || p.status as "rawRef"
      from app.v_ops_queue_priority p
     order by p.queue_name, p.priority, p.status
     limit %s
"""
#: A breach says what was measured under `json`.
BUDGETS: LiteralString = """
    select a.run_id as "runId", a.inline #>> '{json,metric}' as metric, (a.inline #>> '{json,limit}')::float8 as limit,
           (a.inline #>> '{json,observed}')::float8 as observed, a.inline #>> '{json,outcome}' as outcome,
           floor(extract(epoch from a.created_at) * 1000)::bigint as ts,
           'artifact' as source, 'app.artifacts' as provenance, a.uri as "rawRef"
      from app.artifacts a
     where a.step_id = 'BUDGET' and a.inline #>> '{json,kind}' = 'budget'
     order by a.created_at desc, a.run_id, a.task_key
     limit %s
"""
#: Of the last day; a template that was built ahead apart from the plain environment under the same key. How long a sandbox took to
#: boot stands in the task's artifact, once for each of the run's attempts.
TEMPLATES: LiteralString = """
    with tasks as (
        select r.recipe_id, r.recipe_v, b.request ->> 'templateKey' as template_key, b.request ->> 'templateId' as template_id,
               b.run_id, b.task_key, (b.metrics ->> 'wallMs')::float8 as wall_ms
          from app.sbx_runs b
          join app.runs r on r.id = b.run_id
         where b.created_at > now() - interval '1 day' and b.request ->> 'templateKey' is not null),
    boots as (
        select t.recipe_id, t.recipe_v, t.template_key, t.template_id, avg((a.inline #>> '{json,bootMs}')::float8) as mean_ms,
               percentile_cont(0.95) within group (order by (a.inline #>> '{json,bootMs}')::float8) as p95_ms
          from (select distinct recipe_id, recipe_v, template_key, template_id, run_id, task_key from tasks) t
          join app.artifacts a
            on a.run_id = t.run_id and a.step_id = 'ExecuteST' and a.task_key = t.task_key and a.uri like '%/sbx-boot.json'
         where a.inline #>> '{json,bootMs}' is not null
         group by t.recipe_id, t.recipe_v, t.template_key, t.template_id)
    select t.recipe_id as "recipeId", t.recipe_v as "recipeV", t.template_key as "templateKey", t.template_id as "templateId",
           count(*) as "runCount", round(min(b.mean_ms)::numeric, 1)::float8 as "avgBootMs",
           round(min(b.p95_ms)::numeric, 1)::float8 as "p95BootMs", round(avg(t.wall_ms)::numeric, 1)::float8 as "avgExecMs",
           'sql' as source, 'app.sbx_runs, app.artifacts' as provenance, 'sbx-boot.json' as "rawRef"
      from tasks t
      left join boots b on (b.recipe_id, b.recipe_v, b.template_key, b.template_id)
                           is not distinct from (t.recipe_id, t.recipe_v, t.template_key, t.template_id)
     group by t.recipe_id, t.recipe_v, t.template_key, t.template_id
     order by t.recipe_id nulls first, t.recipe_v nulls first, t.template_key, t.template_id nulls first
"""


async def throughput(conn: AsyncConnection[Any], k6: list[K6Row]) -> Throughput:
    """The board's figures, in one snapshot, with the load tests that the caller read."""
    async with snapshot(conn):
        return Throughput(
            fairness=[_fairness(row) for row in await _rows(conn, FAIRNESS, MOST_ROWS)],
            priority=[PriorityRow.model_validate(row) for row in await _rows(conn, PRIORITY, MOST_ROWS)],
            budgets=[BudgetRow.model_validate(row) for row in await _rows(conn, BUDGETS, MOST_BUDGETS)],
            templates=[TemplateRow.model_validate(row) for row in await _rows(conn, TEMPLATES)],
            k6=k6,
        )


def _fairness(row: JsonObject) -> FairnessRow:
    return FairnessRow.model_validate(row | {"state": STANDINGS.get(row["state"])})


async def _rows(conn: AsyncConnection[Any], query: LiteralString, *values: object) -> list[JsonObject]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(query, values or None)).fetchall()
