"""What operators did, all of it: to workflows (see steps.ops), and to queues, partitions and workers.

A change of a queue is the engine's own statement, so its row here is written first, in a transaction that ends after the change: a change
that fails leaves no row.
"""

from typing import LiteralString

from psycopg.rows import dict_row

from engine import Connection
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.contracts.queues import AuditRow, QueueAction, QueueOp
from steps.documents import without_none
from steps.times import iso_of

WRITE_DOWN: LiteralString = """
    insert into app.queue_actions (op, queue_name, partition_key, worker_id, given, actor, reason)
    values (%(op)s, %(queueName)s, %(partitionKey)s, %(workerID)s, %(given)s::jsonb, %(actor)s, %(reason)s)
"""


async def write_down(conn: Connection, op: QueueOp, action: QueueAction, given: JsonObject | None = None) -> None:
    """given: what was set, of a weight or a limit."""
    await conn.execute(WRITE_DOWN, action.model_dump() | {"op": op, "given": canonical_json(given or {})})


#: Both kinds by time, and then by a key that no other action of that time has.
AUDIT: LiteralString = """
    with behind as (select timestamptz 'epoch' + %(last_at)s::bigint * interval '1 microsecond' as at)
    select found.*, floor(extract(epoch from found.at) * 1000000)::bigint as micros
      from (
           (select a.created_at as at, a.run_id || '/' || a.task_key as key, a.inline as done
              from app.artifacts a, behind b
             where a.step_id = 'OPS' and (b.at is null or a.created_at <= b.at)
               and (b.at is null or a.created_at < b.at or a.run_id || '/' || a.task_key < %(last_key)s)
             order by a.created_at desc, a.run_id || '/' || a.task_key desc
             limit %(limit)s)
            union all
           (select q.created_at, lpad(q.id::text, 20, '0'),
                   jsonb_build_object('op', q.op, 'actor', q.actor, 'reason', q.reason, 'queueName', q.queue_name,
                                      'partitionKey', q.partition_key, 'workerID', q.worker_id, 'given', nullif(q.given, '{}'))
              from app.queue_actions q, behind b
             where (b.at is null or q.created_at <= b.at)
               and (b.at is null or q.created_at < b.at or lpad(q.id::text, 20, '0') < %(last_key)s)
             order by q.created_at desc, q.id desc
             limit %(limit)s)) found
     order by found.at desc, found.key desc
     limit %(limit)s
"""


async def list_actions(
    conn: Connection, *, behind: tuple[int, str] | None = None, limit: int
) -> tuple[list[AuditRow], tuple[int, str] | None]:
    """The newest first, and where the next page goes on; None when there is none. behind: the place that the page before gave."""
    last_at, last_key = behind or (None, None)
    given: JsonObject = {"last_at": last_at, "last_key": last_key, "limit": limit + 1}
    async with conn.cursor(row_factory=dict_row) as cursor:
        rows = await (await cursor.execute(AUDIT, given, prepare=False)).fetchall()
    last = rows[limit - 1] if len(rows) > limit else None
    return [_row(row) for row in rows[:limit]], (last["micros"], last["key"]) if last else None


def _row(row: JsonObject) -> AuditRow:
    return AuditRow.model_validate(without_none({"at": iso_of(row["at"])} | row["done"]))
