"""What operators do to workflows: cancel, resume, fork, rewind, delete. Each is one or a few statements in the caller's transaction.

None of them needs to read a history's payloads, so a run too large to load can still be stopped. A running worker learns of it at
its next write, which the fence refuses, or earlier by its watch over what it holds.
"""

import uuid
from collections.abc import Sequence
from typing import LiteralString

from engine.entries import Connection
from engine.errors import NoSuchWorkflow

#: Where runs go that a foreign client resumes or forks without naming a queue; every worker serves it.
INTERNAL_QUEUE = "_dbos_internal_queue"

LOCK: LiteralString = "select status from dbos.workflow_status where workflow_uuid = %s for no key update"

# The whole family, with a bound on depth in case of a cycle in foreign rows; locked in id order.
FAMILY: LiteralString = """
with recursive family (id, depth) as (
    select s.workflow_uuid, 0 from dbos.workflow_status s where s.workflow_uuid = any (%(ids)s)
    union
    select c.workflow_uuid, f.depth + 1
      from family f join dbos.workflow_status c on c.parent_workflow_id = f.id
     where %(children)s and f.depth < 100)
select s.workflow_uuid, s.status from dbos.workflow_status s
 where s.workflow_uuid in (select f.id from family f)
 order by s.workflow_uuid for no key update
"""
CANCEL: LiteralString = """
update dbos.workflow_status s
   set status = 'CANCELLED', owner_xid = null, deduplication_id = null, waits = null, wake_at_ms = null,
       started_at_epoch_ms = null, completed_at = (select engine.now_ms()), updated_at = (select engine.now_ms())
 where s.workflow_uuid = any (%s) and s.status not in ('SUCCESS', 'ERROR', 'CANCELLED')
returning s.workflow_uuid
"""


async def cancel(conn: Connection, ids: Sequence[str], *, children: bool = False) -> list[str]:
    """End workflows, and with `children` everything under them, as CANCELLED. Returns the ids that were ended now; others had ended.

    Raises NoSuchWorkflow for an id that does not exist, and then changes nothing.
    """
    found = {row[0] for row in await (await conn.execute(FAMILY, {"ids": list(ids), "children": children})).fetchall()}
    for id in ids:
        if id not in found:
            raise NoSuchWorkflow(id)
    return [row[0] for row in await (await conn.execute(CANCEL, (sorted(found),))).fetchall()]


# A row that a foreign cancel took out of its queue has no queue_name any more.
RESUME: LiteralString = """
update dbos.workflow_status s
   set status = 'ENQUEUED', queue_name = coalesce(%(queue)s, s.queue_name, %(internal)s), owner_xid = null, executor_id = null,
       recovery_attempts = 0, workflow_deadline_epoch_ms = null, deduplication_id = null, started_at_epoch_ms = null,
       completed_at = null, waits = null, wake_at_ms = null, delay_until_epoch_ms = null, updated_at = (select engine.now_ms())
 where s.workflow_uuid = %(id)s and s.status not in ('SUCCESS', 'ERROR')
returning s.workflow_uuid
"""


async def resume(conn: Connection, id: str, *, queue: str | None = None) -> bool:
    """Let a workflow go on from its journal, under its id, with attempts counted anew; whoever runs it now loses it.

    Returns False for one that ended as SUCCESS or ERROR, which stays as it is. Raises NoSuchWorkflow.
    """
    if await (await conn.execute(LOCK, (id,))).fetchone() is None:
        raise NoSuchWorkflow(id)
    given = {"id": id, "queue": queue, "internal": INTERNAL_QUEUE}
    return await (await conn.execute(RESUME, given)).fetchone() is not None


FORK: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, class_name, config_name, authenticated_user, assumed_role,
    authenticated_roles, inputs, queue_name, queue_partition_key, priority, application_version, application_id, serialization,
    attributes, application_name, forked_from, creator_xid, created_at, updated_at)
select %(new)s, 'ENQUEUED', s.name, s.class_name, s.config_name, s.authenticated_user, s.assumed_role, s.authenticated_roles,
       coalesce(s.inputs, (select i.inputs from dbos.workflow_input i where i.workflow_uuid = s.workflow_uuid)),
       coalesce(%(queue)s, s.queue_name, %(internal)s), s.queue_partition_key, s.priority,
       coalesce(%(version)s, s.application_version), s.application_id, s.serialization, s.attributes, s.application_name,
       s.workflow_uuid, %(new)s, (select engine.now_ms()), (select engine.now_ms())
  from dbos.workflow_status s where s.workflow_uuid = %(id)s
"""
MARK_FORKED: LiteralString = (
    "update dbos.workflow_status set was_forked_from = true where workflow_uuid = %s and not was_forked_from"
)
FORK_STEPS: LiteralString = """
insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, output, error, child_workflow_id,
    started_at_epoch_ms, completed_at_epoch_ms, serialization, application_name, call_path)
select %(new)s, o.function_id, o.function_name, o.output, o.error, o.child_workflow_id, o.started_at_epoch_ms,
       o.completed_at_epoch_ms, o.serialization, o.application_name, o.call_path
  from dbos.operation_outputs o where o.workflow_uuid = %(id)s and o.function_id < %(step)s
"""
FORK_EVENT_HISTORY: LiteralString = """
insert into dbos.workflow_events_history (workflow_uuid, function_id, key, value, serialization)
select %(new)s, h.function_id, h.key, h.value, h.serialization
  from dbos.workflow_events_history h where h.workflow_uuid = %(id)s and h.function_id < %(step)s
"""
RESTORE_EVENTS: LiteralString = """
insert into dbos.workflow_events (workflow_uuid, key, value, serialization)
select distinct on (h.key) h.workflow_uuid, h.key, h.value, h.serialization
  from dbos.workflow_events_history h where h.workflow_uuid = %s order by h.key, h.function_id desc
"""
FORK_STREAMS: LiteralString = """
insert into dbos.streams (workflow_uuid, key, value, "offset", function_id, serialization)
select %(new)s, t.key, t.value, t."offset", t.function_id, t.serialization
  from dbos.streams t where t.workflow_uuid = %(id)s and t.function_id < %(step)s
"""


async def fork(
    conn: Connection, id: str, start_step: int, *, new_id: str | None = None, version: str | None = None, queue: str | None = None
) -> str:
    """Enqueue a new workflow with the same input whose journal holds the original's records before `start_step`; returns its id.

    start_step: the first function_id to run anew; 1 repeats everything. The original is left as it is. Raises NoSuchWorkflow.
    """
    new = new_id or str(uuid.uuid4())
    given = {"id": id, "new": new, "step": start_step, "version": version, "queue": queue, "internal": INTERNAL_QUEUE}
    if await (await conn.execute(LOCK, (id,))).fetchone() is None:
        raise NoSuchWorkflow(id)
    await conn.execute(FORK, given)
    await conn.execute(MARK_FORKED, (id,))
    if start_step > 1:
        await conn.execute(FORK_STEPS, given)
        await conn.execute(FORK_EVENT_HISTORY, given)
        await conn.execute(FORK_STREAMS, given)
        await conn.execute(RESTORE_EVENTS, (new,))
    return new


FORGET_STEPS: LiteralString = "delete from dbos.operation_outputs where workflow_uuid = %s and function_id >= %s"
FORGET_EVENT_HISTORY: LiteralString = "delete from dbos.workflow_events_history where workflow_uuid = %s and function_id >= %s"
FORGET_EVENTS: LiteralString = "delete from dbos.workflow_events where workflow_uuid = %s"
FORGET_STREAMS: LiteralString = "delete from dbos.streams where workflow_uuid = %s and function_id >= %s"
UNREAD_MAIL: LiteralString = """
update dbos.notifications set consumed = false, consumed_by_function_id = null
 where destination_uuid = %s and consumed and consumed_by_function_id >= %s
"""
FORGET_OUTPUT: LiteralString = "delete from dbos.workflow_output where workflow_uuid = %s"
REWIND: LiteralString = """
update dbos.workflow_status s
   set status = 'ENQUEUED', queue_name = coalesce(%(queue)s, s.queue_name, %(internal)s), owner_xid = null, executor_id = null,
       application_version = coalesce(%(version)s, s.application_version), output = null, error = null, recovery_attempts = 0,
       workflow_deadline_epoch_ms = null, deduplication_id = null,
       started_at_epoch_ms = null, completed_at = null, waits = null, wake_at_ms = null, updated_at = (select engine.now_ms())
 where s.workflow_uuid = %(id)s
"""


async def rewind(conn: Connection, id: str, start_step: int, *, version: str | None = None, queue: str | None = None) -> None:
    """Forget the records from `start_step` on (1 forgets all) and run the workflow again from there, under its id.

    version: the application version whose workers take it from now on; as it was, if None. Messages that the forgotten records had
    taken are in the mailbox again. Works in any state. Raises NoSuchWorkflow.
    """
    if await (await conn.execute(LOCK, (id,))).fetchone() is None:
        raise NoSuchWorkflow(id)
    await conn.execute(FORGET_STEPS, (id, start_step))
    await conn.execute(FORGET_EVENT_HISTORY, (id, start_step))
    await conn.execute(FORGET_EVENTS, (id,))
    await conn.execute(RESTORE_EVENTS, (id,))
    await conn.execute(FORGET_STREAMS, (id, start_step))
    await conn.execute(UNREAD_MAIL, (id, start_step))
    await conn.execute(FORGET_OUTPUT, (id,))
    await conn.execute(REWIND, {"id": id, "version": version, "queue": queue, "internal": INTERNAL_QUEUE})


DELETE_PAYLOADS: LiteralString = "delete from dbos.workflow_input where workflow_uuid = any (%s)"
DELETE_OUTPUTS: LiteralString = "delete from dbos.workflow_output where workflow_uuid = any (%s)"
DELETE_STEPS: LiteralString = "delete from dbos.operation_outputs where workflow_uuid = any (%s)"
DELETE: LiteralString = "delete from dbos.workflow_status where workflow_uuid = any (%s)"


async def delete(conn: Connection, ids: Sequence[str]) -> None:
    """Remove workflows and all that hangs on them; whoever runs one loses it."""
    for statement in (DELETE_PAYLOADS, DELETE_OUTPUTS, DELETE_STEPS, DELETE):
        await conn.execute(statement, (list(ids),))
