"""Reading workflows, journals, events, streams and mailboxes."""

from typing import Any, LiteralString

from engine import codec
from engine.entries import Connection
from engine.records import Message, StepRecord, WorkflowStatus

STATUS: LiteralString = """
select s.workflow_uuid, s.status, s.name, s.class_name, s.queue_name, s.queue_partition_key, s.priority, s.application_version,
       s.executor_id, s.recovery_attempts, s.claims, s.created_at, s.updated_at, s.started_at_epoch_ms, s.completed_at,
       s.delay_until_epoch_ms, s.workflow_deadline_epoch_ms, s.wake_at_ms, s.waits, s.parent_workflow_id, s.forked_from,
       s.deduplication_id, coalesce(s.inputs, i.inputs), coalesce(s.output, o.output), coalesce(s.error, o.error), s.serialization
  from dbos.workflow_status s
  left join dbos.workflow_input i using (workflow_uuid)
  left join dbos.workflow_output o using (workflow_uuid)
 where s.workflow_uuid = %s
"""
LISTING: LiteralString = """
select s.workflow_uuid, s.status, s.name, s.class_name, s.queue_name, s.queue_partition_key, s.priority, s.application_version,
       s.executor_id, s.recovery_attempts, s.claims, s.created_at, s.updated_at, s.started_at_epoch_ms, s.completed_at,
       s.delay_until_epoch_ms, s.workflow_deadline_epoch_ms, s.wake_at_ms, s.waits, s.parent_workflow_id, s.forked_from,
       s.deduplication_id, null, null, coalesce(s.error, o.error), s.serialization
  from dbos.workflow_status s left join dbos.workflow_output o using (workflow_uuid)
 where (%(status)s::text is null or s.status = %(status)s) and (%(name)s::text is null or s.name = %(name)s)
   and (%(queue)s::text is null or s.queue_name = %(queue)s)
 order by s.created_at desc, s.workflow_uuid limit %(limit)s
"""
STEPS: LiteralString = """
select o.function_id, o.call_path, o.function_name, o.output, o.error, o.child_workflow_id, o.started_at_epoch_ms,
       o.completed_at_epoch_ms, o.serialization
  from dbos.operation_outputs o where o.workflow_uuid = %s order by o.function_id
"""
EVENT: LiteralString = "select value, serialization from dbos.workflow_events where workflow_uuid = %s and key = %s"
EVENTS: LiteralString = "select key, value, serialization from dbos.workflow_events where workflow_uuid = %s order by key"
STREAM: LiteralString = """
select value, serialization from dbos.streams where workflow_uuid = %s and key = %s and "offset" >= %s order by "offset"
"""
OUTCOME: LiteralString = """
select s.status, coalesce(s.output, o.output), coalesce(s.error, o.error), s.serialization
  from dbos.workflow_status s left join dbos.workflow_output o using (workflow_uuid) where s.workflow_uuid = %s
"""
MESSAGES: LiteralString = """
select n.message_uuid, n.topic, n.message, n.serialization, n.created_at_epoch_ms, n.consumed_by_function_id
  from dbos.notifications n where n.destination_uuid = %s order by n.created_at_epoch_ms, n.seq
"""


def _lenient(text: str | None, serialization: str | None) -> Any:
    """The value, or the stored text where only another client can read it."""
    try:
        return codec.decode(text, serialization)
    except codec.UnreadablePayload:
        return text


def _error(text: str | None, serialization: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    name, message, data = codec.decode_error(text, serialization)
    return {"name": name, "message": message} | ({} if data is None else {"data": data})


def _workflow(row: tuple[Any, ...]) -> WorkflowStatus:
    inputs, output, error, serialization = row[22:26]
    return WorkflowStatus(
        *row[:22],
        input=_lenient(inputs, serialization),
        output=_lenient(output, serialization),
        error=_error(error, serialization),
    )


async def status(conn: Connection, workflow_id: str) -> WorkflowStatus | None:
    row = await (await conn.execute(STATUS, (workflow_id,))).fetchone()
    return None if row is None else _workflow(row)


async def listing(
    conn: Connection, *, status: str | None, name: str | None, queue: str | None, limit: int
) -> list[WorkflowStatus]:
    given = {"status": status, "name": name, "queue": queue, "limit": limit}
    return [_workflow(row) for row in await (await conn.execute(LISTING, given)).fetchall()]


async def steps(conn: Connection, workflow_id: str) -> list[StepRecord]:
    rows = await (await conn.execute(STEPS, (workflow_id,))).fetchall()
    return [StepRecord(r[0], r[1], r[2], _lenient(r[3], r[8]), _error(r[4], r[8]), r[5], r[6], r[7]) for r in rows]


async def event(conn: Connection, workflow_id: str, key: str) -> tuple[Any] | None:
    row = await (await conn.execute(EVENT, (workflow_id, key))).fetchone()
    return None if row is None else (codec.decode(*row),)


async def events(conn: Connection, workflow_id: str) -> dict[str, Any]:
    rows = await (await conn.execute(EVENTS, (workflow_id,))).fetchall()
    return {row[0]: _lenient(row[1], row[2]) for row in rows}


async def stream(conn: Connection, workflow_id: str, key: str, start: int) -> list[Any]:
    rows = await (await conn.execute(STREAM, (workflow_id, key, start))).fetchall()
    return [_lenient(row[0], row[1]) for row in rows]


async def outcome(conn: Connection, workflow_id: str) -> tuple[Any, ...] | None:
    return await (await conn.execute(OUTCOME, (workflow_id,))).fetchone()


async def messages(conn: Connection, workflow_id: str) -> list[Message]:
    rows = await (await conn.execute(MESSAGES, (workflow_id,))).fetchall()
    return [Message(r[0], r[1], _lenient(r[2], r[3]), r[4], r[5]) for r in rows]
