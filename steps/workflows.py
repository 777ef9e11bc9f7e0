"""What operators see of workflows of any kind: lists, journals, queues. Reads only, and never the payloads, which may be large."""

from dataclasses import asdict, dataclass
from typing import LiteralString, cast

from psycopg.rows import dict_row

from engine import Connection
from steps.contracts.base import JsonObject
from steps.contracts.ops import OpsAction, OpsStep, OpsWorkflow, OpsWorkflowDetail, QueueDepth, WorkflowCount
from steps.documents import json_or_text, without_none
from steps.errors import NotFound
from steps.reason import why_not_running

MOST_COUNTED = 10_000

WORKFLOW: LiteralString = """
    select s.workflow_uuid as "workflowID", coalesce(s.status, '') as status, nullif(trim(s.name), '') as name,
           nullif(trim(s.class_name), '') as "className", s.queue_name as "queueName",
           s.application_version as "applicationVersion", s.created_at as "createdAt", s.updated_at as "updatedAt",
           case when s.status = 'PENDING' and (s.waits is not null or s.wake_at_ms is not null) then true end as parked
      from dbos.workflow_status s
"""
ONE: LiteralString = WORKFLOW + " where s.workflow_uuid = %(id)s"
FILTERED: LiteralString = """
           (%(name)s::text is null or s.name = %(name)s)
       and (%(queue)s::text is null or s.queue_name = %(queue)s)
       and (%(id)s::text is null or starts_with(s.workflow_uuid, %(id)s))
       and (%(after)s::bigint is null or s.created_at >= %(after)s) and (%(before)s::bigint is null or s.created_at < %(before)s)
"""
NEWEST: LiteralString = (
    WORKFLOW
    + " where "
    + FILTERED
    + """
       and (%(status)s::text is null or s.status = %(status)s)
       and (%(last_at)s::bigint is null
            or s.created_at <= %(last_at)s and (s.created_at < %(last_at)s or s.workflow_uuid > %(last_id)s))
     order by s.created_at desc, s.workflow_uuid, s.status
     limit %(limit)s
"""
)
QUEUED: LiteralString = (
    WORKFLOW
    + """
     where (s.status = 'ENQUEUED' or s.status = 'PENDING') and s.queue_name is not null
       and (%(status)s::text is null or s.status = %(status)s) and (%(queue)s::text is null or s.queue_name = %(queue)s)
     order by s.queue_name, s.status, s.priority, s.created_at, s.workflow_uuid
     limit %(limit)s
"""
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which workflows. id: how it begins. after, before: made from then on, and before then, in epoch milliseconds."""

    name: str | None = None
    queue: str | None = None
    id: str | None = None
    after: int | None = None
    before: int | None = None


async def list_workflows(
    conn: Connection, which: Filter, *, status: str | None = None, behind: tuple[int, str] | None = None, limit: int
) -> list[OpsWorkflow]:
    """The newest first. behind: of the last row of the page before, when it was made and its id."""
    last_at, last_id = behind or (None, None)
    given = asdict(which) | {"status": status, "last_at": last_at, "last_id": last_id, "limit": limit}
    rows = await _rows(conn, NEWEST, given)
    return await _with_subjects(conn, rows)


async def _with_subjects(conn: Connection, rows: list[JsonObject]) -> list[OpsWorkflow]:
    subjects = await _subjects(conn, [row["workflowID"] for row in rows])
    return [
        OpsWorkflow.model_validate(_workflow(row | without_none({"subject": subjects.get(row["workflowID"])}))) for row in rows
    ]


#: Each state is looked for by itself, so that a common one does not hide the others.
OF_EACH_STATE: LiteralString = """
    select f.status, f.count as "workflowCount"
      from unnest(array['ENQUEUED', 'DELAYED', 'PENDING', 'SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'])
           with ordinality as state (name, place)
     cross join lateral (
           select state.name as status, count(*)
             from (select from dbos.workflow_status s where s.status = state.name and
"""
COUNTS: LiteralString = OF_EACH_STATE + FILTERED + " limit %(most)s) counted) f order by state.place"


async def count_workflows(conn: Connection, which: Filter, *, most: int = MOST_COUNTED) -> list[WorkflowCount]:
    """How many there are in each state, each counted up to `most`."""
    return [WorkflowCount.model_validate(row) for row in await _rows(conn, COUNTS, asdict(which) | {"most": most})]


#: A run's own; else that of the nearest run that it came from: by a fork, as its child, or by several of these, one after another.
SUBJECTS: LiteralString = """
    with recursive origins (id, origin, depth) as (
        select asked.id, asked.id, 0
          from unnest(%(ids)s::text[]) as asked (id)
         union all
        select o.id, came.origin, o.depth + 1
          from origins o
          join dbos.workflow_status s on s.workflow_uuid = o.origin
         cross join lateral (select unnest(array[s.forked_from, s.parent_workflow_id]) as origin) came
         where came.origin is not null and o.depth < 6)
    select distinct on (o.id) o.id, i.goal
      from origins o
      join app.runs r on r.workflow_id = o.origin and not starts_with(r.intent_id, 'it-ops-')
      join app.intents i on i.id = r.intent_id
     order by o.id, o.depth, o.origin
"""


async def _subjects(conn: Connection, ids: list[str]) -> dict[str, str]:
    """What these workflows are for, as far as runs have to do with them."""
    return {row["id"]: row["goal"] for row in await _rows(conn, SUBJECTS, {"ids": ids})}


async def list_queued(conn: Connection, *, queue: str | None = None, status: str | None = None, limit: int) -> list[OpsWorkflow]:
    """What is queued or was taken from a queue and has not ended, by queue and in the order in which it is taken."""
    given = {"status": status, "queue": queue, "limit": limit}
    rows = await _rows(conn, QUEUED, given)
    return await _with_subjects(conn, rows)


#: Written under the lock of the workflow's row, so that created_at orders what was done to it.
AUDIT: LiteralString = """
    select a.inline
      from app.runs r
      join app.artifacts a on a.run_id = r.id and a.step_id = 'OPS'
     where r.workflow_id = %(id)s
     order by a.created_at desc, a.task_key desc
"""


async def get_workflow(conn: Connection, id: str) -> OpsWorkflowDetail:
    """A workflow, why it is not at work, and what operators did to it. Raises NotFound."""
    rows = await _rows(conn, ONE, {"id": id})
    if not rows:
        raise NotFound(f"workflow not found: {id}")
    subject = (await _subjects(conn, [id])).get(id)
    audit = [OpsAction.model_validate(row["inline"]) for row in await _rows(conn, AUDIT, {"id": id})]
    detail: JsonObject = {"subject": subject, "reason": await why_not_running(conn, id), "audit": audit}
    return OpsWorkflowDetail.model_validate(_workflow(rows[0]) | without_none(detail))


EXISTS: LiteralString = "select 1 from dbos.workflow_status where workflow_uuid = %(id)s"
STEPS: LiteralString = """
    select o.function_name as name, o.function_id, o.started_at_epoch_ms as started_at, o.completed_at_epoch_ms as completed_at, o.error
      from dbos.operation_outputs o
     where o.workflow_uuid = %(id)s
     order by o.function_id
"""


async def list_steps(conn: Connection, id: str) -> list[OpsStep]:
    """A workflow's journal, in the order of recording. Raises NotFound."""
    if not await _rows(conn, EXISTS, {"id": id}):
        raise NotFound(f"workflow not found: {id}")
    return [_step(row) for row in await _rows(conn, STEPS, {"id": id})]


QUEUE_DEPTH: LiteralString = """
    select queue_name as "queueName", status, workflow_count as "workflowCount", oldest_created_at as "oldestCreatedAt",
           newest_created_at as "newestCreatedAt"
      from app.v_ops_queue_depth
     where (%(queue)s::text is null or queue_name = %(queue)s) and (%(status)s::text is null or status = %(status)s)
     order by queue_name, status
     limit %(limit)s
"""


async def queue_depth(conn: Connection, *, queue: str | None, status: str | None, limit: int) -> list[QueueDepth]:
    """How much is queued and at work, by queue. What is in no queue is not counted."""
    given = {"queue": queue, "status": status, "limit": limit}
    return [QueueDepth.model_validate(row) for row in await _rows(conn, QUEUE_DEPTH, given)]


#: The newest of each state, from the index of workflows that ended badly, whose condition is repeated here.
FAILED: LiteralString = """
    select f.workflow_uuid as id
      from unnest(array['ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED']) as state
     cross join lateral (
           select s.workflow_uuid, s.created_at from dbos.workflow_status s
            where s.status = state and s.status in ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
            order by s.created_at desc, s.workflow_uuid
            limit %(limit)s) f
     order by f.created_at desc, f.workflow_uuid
     limit %(limit)s
"""


async def list_failed(conn: Connection, limit: int) -> list[str]:
    """Ids of the workflows that failed, the newest first."""
    return [row["id"] for row in await _rows(conn, FAILED, {"limit": limit})]


async def _rows(conn: Connection, query: LiteralString, given: JsonObject) -> list[JsonObject]:
    """Unprepared: a plan that is made once for all would not know which filters are given, and look at every row."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(query, given, prepare=False)).fetchall()


def _workflow(row: JsonObject) -> JsonObject:
    """Without what it does not have. A workflow without a class is shown under its name, and without a name under its class or id."""
    name, class_name, id = row.pop("name"), row.pop("className"), row["workflowID"]
    named = row | {"workflowName": name or class_name or id, "workflowClassName": class_name or name or id}
    return without_none(named)


def _step(row: JsonObject) -> OpsStep:
    completed = row["completed_at"] is not None
    step: JsonObject = {
        "stepId": row["name"],
        "functionId": row["function_id"],
        "status": "ERROR" if row["error"] is not None else "SUCCESS" if completed else "PENDING",
        "startedAt": row["started_at"],
        "completedAt": row["completed_at"],
        "error": None if row["error"] is None else _error(row["error"]),
    }
    return OpsStep.model_validate(without_none(step))


def _error(recorded: str) -> JsonObject:
    """Name and sentence of a recorded error; the text itself where another client wrote it in a form of its own."""
    error = json_or_text(recorded)
    fields = cast(JsonObject, error) if isinstance(error, dict) else {}
    if not isinstance(fields.get("message"), str):
        return {"message": recorded}
    name = fields.get("name")
    return {"message": fields["message"]} | ({"name": name} if isinstance(name, str) else {})
