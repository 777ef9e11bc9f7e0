"""What operators do to a workflow: cancel it, resume it, fork it. Each is allowed in some states only, and each is written down.

The workflow's row and those of its children are locked first, in id order, as everywhere. Then the state is looked at, the engine does
the work, and an artifact of step OPS says who did it and why, all in one transaction: of two cancels at the same time one succeeds, and
the other finds a cancelled workflow. Artifacts belong to runs, so a workflow that is none gets one of its own for the purpose, with
the intent `it-ops-<workflow>`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, get_args

from psycopg.rows import class_row

from engine import Connection, Engine
from steps.canonical import canonical_json, sha256_json
from steps.contracts.base import JsonObject
from steps.contracts.ops import (
    CancelWorkflowRequest,
    ForkWorkflowRequest,
    Op,
    OpsAccepted,
    OpsAction,
    PossibleAction,
    ResumeWorkflowRequest,
    RetryRequest,
    WrittenOp,
)
from steps.documents import without_none
from steps.errors import Conflict, NotFound
from steps.forks import make_fork
from steps.identity import artifact_uri, ops_task_key, run_id
from steps.retry import STEPS, Record, Retry, first_missing, first_record_of, records_of, retry_in
from steps.run_record import WORKFLOW_NAME
from steps.times import iso_of, moment_of
from steps.workflows import get_workflow

STEP = "OPS"
NOT_SAID = "not said"

CANCELLABLE = frozenset({"ENQUEUED", "DELAYED", "PENDING"})
RESUMABLE = frozenset({"CANCELLED", "ENQUEUED"})


@dataclass(frozen=True, slots=True)
class Member:
    """A workflow, or one of those that it started. awaited: its parent has not recorded how it ended."""

    id: str
    status: str
    awaited: bool


# FOR UPDATE keeps out messages too while a fork copies the mailbox.
LOCK_FAMILY: LiteralString = """
    with recursive family (id, depth) as (
        select %s::text, 0
         union
        select c.workflow_uuid, f.depth + 1
          from family f join dbos.workflow_status c on c.parent_workflow_id = f.id
         where f.depth < 100)
    select s.workflow_uuid as id, coalesce(s.status, '') as status,
           not exists (select from dbos.operation_outputs o
                        where o.workflow_uuid = s.parent_workflow_id and o.child_workflow_id = s.workflow_uuid
                          and o.function_name = 'DBOS.getResult') as awaited
      from dbos.workflow_status s
     where s.workflow_uuid in (select f.id from family f)
     order by s.workflow_uuid
       for update of s
"""
LAST_STEP: LiteralString = "select coalesce(max(o.function_id), 0) from dbos.operation_outputs o where o.workflow_uuid = %s"


def refusal_of(op: Op, status: str, *, step: int = 1, last_step: int = 0) -> str | None:
    """What the action would be told about a workflow in this state with so many records; None where it is allowed."""
    match op:
        case "cancel":
            return None if status in CANCELLABLE else f"cannot cancel workflow in status {status}"
        case "resume":
            return None if status in RESUMABLE else f"cannot resume workflow in status {status}"
        case "fork":
            return None if step <= last_step else f"fork stepN {step} exceeds max step {last_step}"


async def possible_actions(conn: Connection, id: str, status: str) -> list[PossibleAction]:
    """Each action, and whether it would be accepted now."""
    last = await _last_step(conn, id)
    actions: list[PossibleAction] = []
    for op in get_args(Op):
        error = refusal_of(op, status, last_step=last)
        more: JsonObject = without_none({"error": error, "maxStep": last if op == "fork" else None})
        actions.append(PossibleAction(op=op, allowed=error is None, **more))
    return actions


async def _last_step(conn: Connection, id: str) -> int:
    found = await (await conn.execute(LAST_STEP, (id,))).fetchone()
    assert found is not None
    return int(found[0])


async def cancel(engine: Engine, id: str, request: CancelWorkflowRequest) -> OpsAccepted:
    """End a workflow that has not ended, with its children. Raises NotFound, and Conflict for one that has."""
    async with engine.transaction() as conn:
        target, _ = await _locked(conn, id)
        _require("cancel", target.status)
        await engine.cancel(id, children=True, conn=conn)
        await _write_down(conn, "cancel", id, request.actor, request.reason)
    return OpsAccepted(accepted=True, workflowID=id)


async def resume(engine: Engine, id: str, request: ResumeWorkflowRequest) -> OpsAccepted:
    """Let a cancelled workflow go on from its journal, with the cancelled children that it waits for. Raises NotFound, and Conflict
    for one that is at work or has ended by itself.
    """
    async with engine.transaction() as conn:
        target, children = await _locked(conn, id)
        _require("resume", target.status)
        for member in [target, *(child for child in children if child.status == "CANCELLED" and child.awaited)]:
            await engine.resume(member.id, conn=conn)
        await _write_down(conn, "resume", id, request.actor, request.reason)
    return OpsAccepted(accepted=True, workflowID=id)


async def fork(engine: Engine, id: str, request: ForkWorkflowRequest) -> OpsAccepted:
    """Start a copy that keeps the journal's records before stepN. Raises NotFound, and Conflict for a step that was never reached."""
    async with engine.transaction() as conn:
        target, _ = await _locked(conn, id)
        _require("fork", target.status, step=request.stepN, last_step=await _last_step(conn, id))
        forked = await make_fork(engine, conn, id, request.stepN, request.appVersion)
        await _write_down(conn, "fork", id, request.actor, request.reason, forked)
    return OpsAccepted(accepted=True, workflowID=id, forkedWorkflowID=forked)


async def retry(engine: Engine, id: str, request: RetryRequest, *, version: str | None = None) -> Retry:
    """Try a failed run again, as steps.retry does; written down if it is said who does it, or why."""
    async with engine.transaction() as conn:
        again = await retry_in(engine, conn, id, version)
        if request.actor or request.reason:
            await _write_down(conn, "retry", again.workflow_id, request.actor or NOT_SAID, request.reason or NOT_SAID)
    return again


def _require(op: Op, status: str, **records: int) -> None:
    error = refusal_of(op, status, **records)
    if error is not None:
        raise Conflict(error)


async def retry_from_step(engine: Engine, id: str, step: str | None, *, actor: str, reason: str) -> OpsAccepted:
    """Fork a workflow from where it went wrong, or from a step: its number, or its name. Raises as `fork` does."""
    async with engine.pool.connection() as conn:
        found = await get_workflow(conn, id)
        records = await records_of(conn, id)
    number = record_to_retry(found.workflowName, step, records)
    if number is None:
        raise Conflict(f"workflow {id} has no record of step {step}" if step else f"workflow {id} has no records yet")
    return await fork(engine, id, ForkWorkflowRequest(stepN=number, actor=actor, reason=reason))


def record_to_retry(name: str, step: str | None, records: Sequence[Record]) -> int | None:
    """The record to begin with. Without a step: where a run has no result, or another workflow has its first failure."""
    if step is not None and step.isdecimal():
        return int(step)
    if step is None and name == WORKFLOW_NAME:
        step = first_missing(record.name for record in records if not record.failed)
    if name == WORKFLOW_NAME and step in STEPS:
        number = first_record_of(step, records)
        return number if any(record.number >= number for record in records) else None
    failed = [record for record in records if record.failed]
    chosen = [record for record in records if record.name == step] if step is not None else failed[:1] or records
    return chosen[-1].number if chosen else None


async def _locked(conn: Connection, id: str) -> tuple[Member, Sequence[Member]]:
    """The workflow and everything under it, held until the end of the transaction. Raises NotFound."""
    async with conn.cursor(row_factory=class_row(Member)) as cursor:
        members = {member.id: member for member in await (await cursor.execute(LOCK_FAMILY, (id,))).fetchall()}
    target = members.pop(id, None)
    if target is None:
        raise NotFound(f"workflow not found: {id}")
    return target, list(members.values())


# The audit -----------------------------------------------------------------------------------------------------------

#: A run that was made for this purpose shows the state after the last action; any other is left alone.
UTILITY_RUN: LiteralString = """
    with intent as (
        insert into app.intents (id, goal, payload)
        select 'it-ops-' || %(id)s, %(goal)s, %(payload)s::jsonb
         where not exists (select from app.runs r where r.workflow_id = %(id)s)
            on conflict do nothing)
    insert into app.runs as r (id, intent_id, workflow_id, status)
    select %(run_id)s, 'it-ops-' || %(id)s, s.workflow_uuid,
           case s.status when 'ENQUEUED' then 'queued' when 'DELAYED' then 'queued' when 'PENDING' then 'running'
                         when 'SUCCESS' then 'succeeded' when 'CANCELLED' then 'canceled' else 'retries_exceeded' end
      from dbos.workflow_status s
     where s.workflow_uuid = %(id)s
        on conflict (workflow_id) do update set status = excluded.status, updated_at = now() where r.intent_id = excluded.intent_id
"""
MOMENT: LiteralString = """
    select (select r.id from app.runs r where r.workflow_id = %s), nextval('app.op_seq'), engine.now_ms()
"""
WRITE_DOWN: LiteralString = """
    insert into app.artifacts (run_id, step_id, idx, attempt, task_key, kind, uri, inline, sha256, created_at)
    values (%(run_id)s, 'OPS', 0, 1, %(task_key)s, 'json_diagnostic', %(uri)s, %(inline)s::jsonb, %(sha256)s, clock_timestamp())
"""


async def _write_down(conn: Connection, op: WrittenOp, id: str, actor: str, reason: str, forked: str | None = None) -> None:
    goal = f"what operators did to {id}"
    payload: JsonObject = {"goal": goal, "inputs": {"workflowID": id}, "constraints": {}}
    given = {"id": id, "run_id": run_id(id), "goal": goal, "payload": canonical_json(payload)}
    await conn.execute(UTILITY_RUN, given)
    found = await (await conn.execute(MOMENT, (id,))).fetchone()
    assert found is not None
    own_run_id, number, now_ms = found
    more: dict[str, Any] = {} if forked is None else {"forkedWorkflowID": forked}
    action = OpsAction(op=op, targetWorkflowID=id, at=iso_of(moment_of(now_ms)), actor=actor, reason=reason, **more).document()
    task_key = ops_task_key(op, id, actor, reason, forked, number)
    row = {
        "run_id": own_run_id,
        "task_key": task_key,
        "uri": artifact_uri(own_run_id, STEP, task_key, f"{op}.json"),
        "inline": canonical_json(action),
        "sha256": sha256_json(action),
    }
    await conn.execute(WRITE_DOWN, row)
