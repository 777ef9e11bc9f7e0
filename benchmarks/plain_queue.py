"""Plain SKIP LOCKED, the yardstick of a queue's cost: the most urgent and oldest first, with the best index for that and no partitions.

It claims the same rows of the same table and writes and returns the same columns as Holdfast's claim, and its finish is Holdfast's.
It pays for nothing that fairness, caps and rates need: our triggers and indexes of queues are not in its database.
"""

from typing import LiteralString

from benchmarks.processes import ROOT

BATCH = 50

_OURS = b"".join(
    [
        *(b"drop trigger workflow_status_%s on dbos.workflow_status;" % name for name in (b"enqueued", b"changed")),
        *(b"drop index dbos.workflow_status_%s;" % name for name in (b"queued", b"begun", b"held")),
    ]
)
_INDEX = b"create index plain_queued on dbos.workflow_status (queue_name, priority, created_at) where status = 'ENQUEUED';"
SCHEMA = (ROOT / "schema.sql").read_bytes() + _OURS + _INDEX

# The limit is a literal: for one of a parameter the planner would guess.
CLAIM: LiteralString = """
with clock as materialized (select engine.now_ms() as now_ms),
picked as materialized (
    select w.workflow_uuid
      from dbos.workflow_status w
     where w.status = 'ENQUEUED' and w.queue_name = %(queue)s and w.name = any (%(names)s)
       and (w.application_version is null or w.application_version = %(version)s)
     order by w.priority, w.created_at limit 50
       for no key update of w skip locked)
update dbos.workflow_status w
   set status = 'PENDING', owner_xid = %(token)s, executor_id = %(me)s,
       started_at_epoch_ms = coalesce(w.started_at_epoch_ms, clock.now_ms), updated_at = clock.now_ms,
       recovery_attempts = coalesce(w.recovery_attempts, 0) + 1, claims = w.claims + 1, waits = null, wake_at_ms = null, held = false,
       workflow_deadline_epoch_ms = least(w.workflow_deadline_epoch_ms, clock.now_ms + w.workflow_timeout_ms)
  from picked p, clock
 where w.workflow_uuid = p.workflow_uuid and coalesce(w.status, '') = 'ENQUEUED'
returning w.workflow_uuid, w.name, w.class_name::text,
          coalesce(w.inputs, (select i.inputs from dbos.workflow_input i where i.workflow_uuid = w.workflow_uuid)),
          w.serialization, w.recovery_attempts, w.claims, w.forked_from, w.parent_workflow_id, w.queue_name, w.queue_partition_key,
          w.priority, w.application_version, w.workflow_deadline_epoch_ms, w.attributes, w.held, clock.now_ms
"""
