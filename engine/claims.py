"""Claiming queued runs, loading their history, and giving them back.

A claim takes as many runs as there is room for, per queue; which ones is decided by `engine.claim` in schema.sql. Rows that another
claimer or a sender has locked are passed over. The history is read by a later statement than the claim: only a snapshot younger than
the claim's locks is sure to hold everything that a former owner recorded.

Where a row that was found by its queue or owner is updated by its id, its state is checked as `coalesce(status, '')`: in plain sight the
planner would take the small partial index of that state again, and join it by filter.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString

from engine.entries import FIELD, Connection, numbers
from engine.run import Claimed, Recorded

CLAIM: LiteralString = r"""
select * from engine.claim(%(me)s, %(token)s, %(version)s, string_to_array(%(names)s, E'\x1f'), string_to_array(%(queues)s, E'\x1f'),
                           %(rooms)s::int[])
"""


async def claim(
    conn: Connection,
    worker_id: str,
    token: str,
    room: Mapping[str, int],
    names: Sequence[str],
    version: str | None,
) -> list[Claimed]:
    """Take up to `room[queue]` runs of each queue whose workflow this worker knows, under a token of the caller's, never used before."""
    rows = await conn.execute(
        CLAIM,
        {
            "me": worker_id,
            "queues": FIELD.join(room),
            "rooms": numbers(list(room.values())),
            "names": FIELD.join(names),
            "version": version,
            "token": token,
        },
    )
    claimed = [Claimed(row, token) for row in await rows.fetchall()]
    claimed.sort(key=lambda c: c.priority)
    return claimed


HISTORY: LiteralString = r"""
select o.workflow_uuid, o.call_path, o.function_name, o.output, o.error, o.child_workflow_id, o.serialization, o.function_id
  from unnest(string_to_array(%s, E'\x1f')) as b (id)
  join dbos.operation_outputs o on o.workflow_uuid = b.id
 order by o.workflow_uuid, o.function_id
"""


async def histories(conn: Connection, ids: Sequence[str]) -> dict[str, list[tuple[str | None, Recorded]]]:
    """The journals of these runs: for each, (call path, record) in the order of recording."""
    found: dict[str, list[tuple[str | None, Recorded]]] = {}
    rows = await conn.execute(HISTORY, (FIELD.join(ids),))
    for row in await rows.fetchall():
        found.setdefault(row[0], []).append((row[1], Recorded(row[2], row[3], row[4], row[5], row[6], row[7])))
    return found


RELEASE: LiteralString = """
with mine as materialized (
    select s.workflow_uuid from dbos.workflow_status s
     where s.executor_id = %s and s.status = 'PENDING' order by s.workflow_uuid for no key update)
update dbos.workflow_status s
   set status = 'ENQUEUED', owner_xid = null, executor_id = null, started_at_epoch_ms = null, updated_at = (select engine.now_ms()),
       recovery_attempts = greatest(s.recovery_attempts - 1, 0)
  from mine m where s.workflow_uuid = m.workflow_uuid and coalesce(s.status, '') = 'PENDING'
"""


async def release(conn: Connection, worker_id: str) -> None:
    """Give back all that a worker holds without counting the attempt: it is stopping, they did nothing wrong."""
    await conn.execute(RELEASE, (worker_id,))


OWNED: LiteralString = """
select s.workflow_uuid, s.owner_xid from dbos.workflow_status s where s.executor_id = %s and s.status = 'PENDING'
"""
PUT_BACK: LiteralString = r"""
with strays as materialized (
    select s.workflow_uuid
      from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as b (id, token)
      join dbos.workflow_status s on s.workflow_uuid = b.id and s.owner_xid = b.token and coalesce(s.status, '') = 'PENDING'
     order by s.workflow_uuid for no key update of s skip locked)
update dbos.workflow_status s
   set status = 'ENQUEUED', owner_xid = null, executor_id = null, started_at_epoch_ms = null, updated_at = (select engine.now_ms())
  from strays t where s.workflow_uuid = t.workflow_uuid and coalesce(s.status, '') = 'PENDING'
returning s.workflow_uuid
"""


async def put_back_strays(conn: Connection, worker_id: str, is_known: Callable[[str, str], bool]) -> int:
    """Put back what this worker owns in the database but does not run; how many.

    A claim whose answer got lost leaves such rows, or a run that left memory as lost when it was not. is_known(id, token) is asked
    after the rows were read, so that a claim that began meanwhile is known; what ended meanwhile no longer carries its token.
    """
    owned = await (await conn.execute(OWNED, (worker_id,))).fetchall()
    strays = [(id, token) for id, token in owned if token is not None and not is_known(id, token)]
    if not strays:
        return 0
    given = (FIELD.join([s[0] for s in strays]), FIELD.join([s[1] for s in strays]))
    return len(await (await conn.execute(PUT_BACK, given)).fetchall())


LOST: LiteralString = r"""
select b.id
  from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as b (id, token)
  left join dbos.workflow_status s on s.workflow_uuid = b.id
 where s.owner_xid is distinct from b.token
"""


async def lost(conn: Connection, runs: Sequence[tuple[str, str]]) -> list[str]:
    """Those of the runs, (id, token), that were cancelled or taken over."""
    rows = await conn.execute(LOST, (FIELD.join([r[0] for r in runs]), FIELD.join([r[1] for r in runs])))
    return [row[0] for row in await rows.fetchall()]


# Rows that no claim of this worker can take; looked at now and then, bounded, so that somebody is told.
STRANGERS: LiteralString = r"""
select w.name, w.queue_name, w.application_version, count(*)
  from (select s.name, s.queue_name, s.application_version
          from unnest(string_to_array(%(queues)s, E'\x1f')) as q (name)
         cross join lateral (select p.key from engine.queue_partition p where p.queue = q.name and p.state in ('r', 's')
                              order by p.state desc, p.key limit 100) p
         cross join lateral (select x.name, x.queue_name, x.application_version
                               from dbos.workflow_status x
                              where x.status = 'ENQUEUED' and x.queue_name = q.name and coalesce(x.queue_partition_key, '') = p.key
                              order by x.priority, x.created_at limit 10) s) w
 where not coalesce(w.name = any ((select string_to_array(%(names)s, E'\x1f'))::text[]), false) or w.application_version <> %(version)s
 group by 1, 2, 3
"""


async def strangers(conn: Connection, queues: Sequence[str], names: Sequence[str], version: str | None) -> list[tuple[Any, ...]]:
    """(name, queue, version, count) of queued runs at the head of partitions that this worker must leave to others."""
    rows = await conn.execute(STRANGERS, {"queues": FIELD.join(queues), "names": FIELD.join(names), "version": version or ""})
    return await rows.fetchall()
