"""Bringing runs back into their queues: wake-ups, timers, delayed starts; and ending those whose time is up.

Any worker may do any of this at any time. Rows that somebody else holds are passed over and come up again, except in WAKE, which
must wait for them: a run that is being parked right now is exactly the one that would miss its wake-up.
"""

from collections.abc import Sequence
from typing import LiteralString

from engine.entries import FIELD, Connection

# In one transaction, as separate statements: taking the wake-ups; locking their runs in id order, which waits for a park under way;
# and then, with a snapshot younger than those locks, waking whoever is parked for that token. A run that is not parked is awake: its
# next park looks for what has happened, under the same lock.
TAKE_WAKES: LiteralString = """
delete from engine.wake w
 where w.id in (select x.id from engine.wake x order by x.id limit 1000 for update skip locked)
returning w.workflow_uuid, w.token
"""
LOCK_RUNS: LiteralString = """
select 1 from dbos.workflow_status s where s.workflow_uuid = any (%s) order by s.workflow_uuid for no key update
"""
WAKE: LiteralString = r"""
update dbos.workflow_status s
   set status = 'ENQUEUED', waits = null, wake_at_ms = null, updated_at = (select engine.now_ms())
  from (select t.id, array_agg(t.token) as tokens
          from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as t (id, token) group by t.id) given
 where s.workflow_uuid = given.id and coalesce(s.status, '') = 'PENDING' and s.owner_xid is null and s.waits && given.tokens
"""
# Under the locks of LOCK_RUNS: who is not parked has no use for its waits any more.
FORGET_WAITS: LiteralString = """
delete from engine.wait w using dbos.workflow_status s
 where w.workflow_uuid = any (%s) and s.workflow_uuid = w.workflow_uuid and s.waits is null
"""


async def wake(conn: Connection) -> int:
    """Wake the parked runs that something happened for; returns how many wake-ups were taken out (1000 means: there may be more)."""
    async with conn.transaction():
        taken = await (await conn.execute(TAKE_WAKES)).fetchall()
        if not taken:
            return 0
        ids = sorted({row[0] for row in taken})
        await conn.execute(LOCK_RUNS, (ids,))
        await conn.execute(WAKE, (FIELD.join([r[0] for r in taken]), FIELD.join([r[1] for r in taken])))
        await conn.execute(FORGET_WAITS, (ids,))
    return len(taken)


SPREAD: LiteralString = r"""
insert into engine.wake (workflow_uuid, token)
select w.workflow_uuid, w.token
  from engine.wait w where w.token = any (string_to_array(%s, E'\x1f'))
returning workflow_uuid
"""


async def spread(conn: Connection, tokens: Sequence[str]) -> int:
    """Leave wake-ups for whoever waits for these tokens; how many.

    For tokens that many may wait for. To be called after the commit of what happened; a waiter looks once more after the commit of its
    parking, so one of the two sees the other.
    """
    return len(await (await conn.execute(SPREAD, (FIELD.join(tokens),))).fetchall())


EVERYBODY: LiteralString = "select distinct w.workflow_uuid from engine.wait w"
HAPPENED: LiteralString = r"""
insert into engine.wake (workflow_uuid, token)
select w.workflow_uuid, w.token
  from engine.wait w
 where w.workflow_uuid = any (string_to_array(%s, E'\x1f'))
   and (exists (select from dbos.workflow_events e
                  where left(w.token, 2) = 'e:' and e.workflow_uuid = split_part(substr(w.token, 3), E'\x1c', 1)
                    and e.key = split_part(w.token, E'\x1c', 2))
        or exists (select from dbos.workflow_status s
                    where s.workflow_uuid = substr(w.token, 3) and left(w.token, 2) = 'c:'
                      and s.status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')))
returning workflow_uuid
"""


async def look_again_for_all(conn: Connection) -> int:
    """Like look_again for every waiter: after a worker died, which may have been between a commit and its spreading."""
    ids = [row[0] for row in await (await conn.execute(EVERYBODY)).fetchall()]
    return await look_again(conn, ids) if ids else 0


async def look_again(conn: Connection, ids: Sequence[str]) -> int:
    """Leave wake-ups for those of the parked runs whose event or workflow came while they were being parked; how many."""
    return len(await (await conn.execute(HAPPENED, (FIELD.join(ids),))).fetchall())


# A run that a foreign client cancelled while parked keeps its timer; it is only cleared.
TIMERS: LiteralString = """
with due as materialized (
    select s.workflow_uuid from dbos.workflow_status s
     where s.wake_at_ms <= (select engine.now_ms()) order by s.wake_at_ms limit 1000
       for no key update skip locked)
update dbos.workflow_status s
   set status = case when s.status = 'PENDING' and s.owner_xid is null then 'ENQUEUED' else s.status end,
       waits = null, wake_at_ms = null, updated_at = (select engine.now_ms())
  from due d where s.workflow_uuid = d.workflow_uuid
returning s.workflow_uuid
"""
DELAYED: LiteralString = """
with due as materialized (
    select s.workflow_uuid from dbos.workflow_status s
     where s.status = 'DELAYED' and s.delay_until_epoch_ms <= (select engine.now_ms()) order by s.delay_until_epoch_ms limit 1000
       for no key update skip locked)
update dbos.workflow_status s
   set status = 'ENQUEUED', updated_at = (select engine.now_ms()),
       deduplication_id = case when s.is_debounced then null else s.deduplication_id end
  from due d where s.workflow_uuid = d.workflow_uuid
returning s.workflow_uuid
"""
OVERDUE: LiteralString = """
with due as materialized (
    select s.workflow_uuid from dbos.workflow_status s
     where s.workflow_deadline_epoch_ms <= (select engine.now_ms()) and s.status in ('ENQUEUED', 'DELAYED', 'PENDING')
     order by s.workflow_deadline_epoch_ms limit 1000
       for no key update skip locked)
update dbos.workflow_status s
   set status = 'CANCELLED', owner_xid = null, deduplication_id = null, waits = null, wake_at_ms = null,
       started_at_epoch_ms = null, completed_at = (select engine.now_ms()), updated_at = (select engine.now_ms())
  from due d where s.workflow_uuid = d.workflow_uuid
returning s.workflow_uuid
"""
NEXT_DUE: LiteralString = """
select least((select min(wake_at_ms) from dbos.workflow_status where wake_at_ms is not null),
             (select min(delay_until_epoch_ms) from dbos.workflow_status where status = 'DELAYED')) - (select engine.now_ms())
"""


async def timers(conn: Connection) -> int:
    """Put parked runs whose time has come and delayed starts that are due into their queues; how many."""
    parked = await (await conn.execute(TIMERS)).fetchall()
    if parked:
        await conn.execute(FORGET_WAITS, ([row[0] for row in parked],))
    delayed = await (await conn.execute(DELAYED)).fetchall()
    return len(parked) + len(delayed)


async def overdue(conn: Connection) -> list[str]:
    """Cancel the workflows whose deadline has passed; their ids."""
    return [row[0] for row in await (await conn.execute(OVERDUE)).fetchall()]


async def next_due_s(conn: Connection) -> float | None:
    """Seconds until the next timer, None without one."""
    row = await (await conn.execute(NEXT_DUE)).fetchone()
    return None if row is None or row[0] is None else max(row[0], 0) / 1000
