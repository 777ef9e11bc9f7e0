"""How work flows: depth, rate, limits and what is done once only. Reads only, all of one moment."""

from textwrap import dedent
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from steps import throughput
from steps.contracts.base import JsonObject
from steps.contracts.flow import DedupeRow, DepthRow, Flow, PolicyRow, RateRow
from steps.documents import without_none
from steps.repro import snapshot

DEPTH: LiteralString = """
    select d.queue_name as "queueName",
           coalesce(max(d.workflow_count) filter (where d.status = 'ENQUEUED'), 0) as queued,
           (select count(*) from dbos.workflow_status s
             where s.status = 'PENDING' and s.executor_id is not null and s.queue_name = d.queue_name) as "atWork",
           max(d.oldest_created_at) filter (where d.status = 'ENQUEUED') as "oldestQueuedAt",
           max(d.newest_created_at) filter (where d.status = 'ENQUEUED') as "newestQueuedAt"
      from app.v_ops_queue_depth d
     group by d.queue_name
     order by d.queue_name
"""
#: Ends are looked for among the workflows of the last six hours, which an index finds.
RATE: LiteralString = """
    with recent as (
        select s.queue_name, s.created_at, s.completed_at, s.status
          from dbos.workflow_status s, (select engine.now_ms() as ms offset 0) now
         where s.created_at > now.ms - 21600000 and s.queue_name is not null),
    moves as (
        select queue_name, created_at - created_at % 60000 as minute, 1 as made, 0 as ended, 0 as failed from recent
         union all
        select queue_name, completed_at - completed_at % 60000, 0, 1,
               (status in ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'))::int
          from recent where completed_at is not null)
    select m.queue_name as "queueName", m.minute, sum(m.made) as made, sum(m.ended) as ended, sum(m.failed) as failed
      from moves m, (select engine.now_ms() as ms offset 0) now
     where m.minute > now.ms - 3600000
     group by m.queue_name, m.minute
     order by m.queue_name, m.minute
"""
POLICY: LiteralString = """
    with held as (
        select s.queue_name, coalesce(s.queue_partition_key, '') as key, count(*) as count
          from dbos.workflow_status s
         where s.held and s.owner_xid is not null
         group by 1, 2)
    select l.* from (
        select q.name as "queueName", 'concurrency' as metric, q.concurrency as limit,
               (select coalesce(sum(h.count), 0)::int from held h where h.queue_name = q.name) as observed, null::float8 as "periodS"
          from dbos.queues q where q.concurrency is not null
         union all
        select q.name, 'partitionConcurrency', q.partition_concurrency,
               (select coalesce(max(h.count), 0) from held h where h.queue_name = q.name), null
          from dbos.queues q where q.partition_concurrency is not null
         union all
        select q.name, 'rate', q.rate_limit_max,
               (select count(*) from dbos.workflow_status s
                 where s.queue_name = q.name and s.started_at_epoch_ms > engine.now_ms() - q.rate_limit_period_sec * 1000
                   and s.created_at > engine.now_ms() - 21600000), q.rate_limit_period_sec
          from dbos.queues q where q.rate_limit_max is not null) l
     order by l."queueName", l.metric
"""
#: Side effects of the last day; keys that hold a second workflow off until the first one has ended.
DEDUPE: LiteralString = """
    select 'effects' as what, count(*) as count, coalesce(sum(m.seen_count - 1), 0)::int as absorbed, 'app.mock_receipts' as provenance
      from app.mock_receipts m where m.created_at > now() - interval '1 day'
     union all
    select 'keys', count(*), 0, 'dbos.workflow_status'
      from dbos.workflow_status s where s.deduplication_id is not null
"""

QUERIES: dict[str, LiteralString] = {
    "queues": DEPTH,
    "rate": RATE,
    "policy": POLICY,
    "dedupe": DEDUPE,
    "fairness": throughput.FAIRNESS,
    "priority": throughput.PRIORITY,
    "budgets": throughput.BUDGETS,
    "templates": throughput.TEMPLATES,
}
SOURCES = {"queues": "app.v_ops_queue_depth", "rate": "dbos.workflow_status", "policy": "dbos.queues, dbos.workflow_status"}


async def flow(conn: AsyncConnection[Any]) -> Flow:
    """The figures, in one snapshot."""
    async with snapshot(conn):
        at = await (await conn.execute("select engine.now_ms()")).fetchone()
        assert at is not None
        return Flow(
            at=at[0],
            queues=[DepthRow.model_validate(_sourced(row, "queues")) for row in await _rows(conn, DEPTH)],
            rate=[RateRow.model_validate(_sourced(row, "rate")) for row in await _rows(conn, RATE)],
            policy=[PolicyRow.model_validate(without_none(_sourced(row, "policy"))) for row in await _rows(conn, POLICY)],
            dedupe=[DedupeRow.model_validate(_sourced(row, "dedupe")) for row in await _rows(conn, DEDUPE)],
            queries={name: dedent(query).strip() for name, query in QUERIES.items()},
        )


def _sourced(row: JsonObject, name: str) -> JsonObject:
    """The row with where it was read."""
    ref = f"/api/ops/wf?queueName={row['queueName']}" if "queueName" in row else "/api/ops/flow"
    return {"source": "sql", "provenance": SOURCES.get(name), "rawRef": ref} | row


async def _rows(conn: AsyncConnection[Any], query: LiteralString) -> list[JsonObject]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(query)).fetchall()
