"""What clients see of a run: RunHeader, GateView.

Read-only. Each projection stands beside the statement that feeds it. Two sources meet here: `app.*`, which
the run's own commits write, and `dbos.*`, the engine's record. Where both know a status the further one
counts, so a run that the engine ended without the product's help (cancelled, too many attempts) shows its
end; the product's word is never taken back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import orjson
from psycopg import AsyncConnection
from psycopg.rows import class_row

from api.config import Config
from steps import improvements
from steps.contracts.base import JsonObject
from steps.contracts.gate import GateView
from steps.contracts.views import Reason, RunHeader, StartedRunHeader
from steps.documents import without_none
from steps.errors import NotFound
from steps.ingress import RunRow
from steps.reason import why_not_running
from steps.run_record import WORKFLOW_NAME, Purpose
from steps.times import epoch_ms

STATUS_OF_RUN: Mapping[str, str] = {
    "queued": "ENQUEUED",
    "running": "PENDING",
    "repairing": "PENDING",
    "waiting_input": "WAITING_INPUT",
    "succeeded": "SUCCESS",
    "failed": "ERROR",
    "retries_exceeded": "ERROR",
    "canceled": "CANCELLED",
}
#: The engine's PENDING includes runs that wait, so it says no more than that the run exists.
STATUS_OF_WORKFLOW: Mapping[str, str] = {
    "ENQUEUED": "ENQUEUED",
    "DELAYED": "ENQUEUED",
    "PENDING": "ENQUEUED",
    "RUNNING": "PENDING",
    "WAITING": "WAITING_INPUT",
    "SUCCESS": "SUCCESS",
    "FAILURE": "ERROR",
    "ERROR": "ERROR",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "ERROR",
    "CANCELLED": "CANCELLED",
}
ENDED = 4
RANK: Mapping[str, int] = {
    "ENQUEUED": 1,
    "PENDING": 2,
    "WAITING_INPUT": 3,
    "SUCCESS": ENDED,
    "ERROR": ENDED,
    "CANCELLED": ENDED,
}


def merged_status(run_status: str, workflow_status: str | None) -> str:
    """The further of the two. A repair is other work than the workflow that failed: its word counts."""
    ours = STATUS_OF_RUN.get(run_status, "ERROR")
    theirs = STATUS_OF_WORKFLOW.get(workflow_status or "")
    if theirs is None or run_status == "repairing":
        return ours
    return theirs if RANK[theirs] > RANK[ours] else ours


# Run header -------------------------------------------------------------------------------------------------

RUN: LiteralString = """
    select r.id as run_id, r.workflow_id, r.status, r.recipe_id, r.recipe_v, r.recipe_hash, r.intent_hash,
           r.error, r.trace_id, r.next_action, r.last_step, r.retry_count, r.queue_partition_key,
           (select i.goal from app.intents i where i.id = r.intent_id) as subject,
           floor(extract(epoch from r.created_at) * 1000)::bigint as created_at_ms,
           floor(extract(epoch from r.updated_at) * 1000)::bigint as updated_at_ms,
           s.status as workflow_status, s.application_version as workflow_version,
           s.queue_name as queue, s.priority, r.purpose
      from app.runs r
      left join dbos.workflow_status s on s.workflow_uuid = r.workflow_id
     where r.workflow_id = %(id)s or r.id = %(id)s
     order by r.workflow_id = %(id)s desc
     limit 1
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its row and the engine's have it."""

    run_id: str
    workflow_id: str
    status: str
    recipe_id: str | None
    recipe_v: str | None
    recipe_hash: str | None
    intent_hash: str | None
    error: str | None
    trace_id: str | None
    next_action: str | None
    last_step: str | None
    retry_count: int
    created_at_ms: int
    updated_at_ms: int
    workflow_status: str | None
    workflow_version: str | None
    queue_partition_key: str | None = None
    subject: str | None = None
    queue: str | None = None
    priority: int | None = None
    purpose: Purpose = "run"


async def find_run(conn: AsyncConnection[Any], wid: str) -> Run | None:
    """The run with this workflow id or run id."""
    async with conn.cursor(row_factory=class_row(Run)) as cursor:
        await cursor.execute(RUN, {"id": wid})
        return await cursor.fetchone()


async def require_run(conn: AsyncConnection[Any], wid: str) -> Run:
    """The same. Raises NotFound when there is none."""
    run = await find_run(conn, wid)
    if run is None:
        raise NotFound("run not found")
    return run


async def run_header(conn: AsyncConnection[Any], run: Run, config: Config) -> RunHeader:
    """The header, with the reason why the run is not at work, if it is not."""
    status = merged_status(run.status, run.workflow_status)
    reason = None if RANK[status] == ENDED else await why_not_running(conn, run.workflow_id)
    return RunHeader.model_validate(_header(run, status, config, reason))


def started_run_header(row: RunRow, config: Config, *, is_replay: bool) -> StartedRunHeader:
    """The header as a start answers it: from the run's own row alone, so that a fresh run is ENQUEUED."""
    run = Run(
        run_id=row.id,
        workflow_id=row.workflow_id,
        status=row.status,
        recipe_id=row.recipe_id,
        recipe_v=row.recipe_v,
        recipe_hash=row.recipe_hash,
        intent_hash=row.intent_hash,
        error=row.error,
        trace_id=row.trace_id,
        next_action=row.next_action,
        last_step=row.last_step,
        retry_count=row.retry_count,
        created_at_ms=epoch_ms(row.created_at),
        updated_at_ms=epoch_ms(row.updated_at),
        workflow_status=None,
        workflow_version=None,
        queue_partition_key=row.queue_partition_key,
    )
    header = _header(run, merged_status(run.status, None), config)
    return StartedRunHeader.model_validate(header | {"isReplay": is_replay})


def _header(run: Run, status: str, config: Config, reason: Reason | None = None) -> JsonObject:
    header: JsonObject = {
        "runId": run.run_id,
        "workflowID": run.workflow_id,
        "status": status,
        "recipeRef": {"id": run.recipe_id, "v": run.recipe_v} if run.recipe_id and run.recipe_v else None,
        "recipeHash": run.recipe_hash,
        "intentHash": run.intent_hash,
        "workflowName": improvements.WORKFLOW_NAME if run.purpose == "improvement" else WORKFLOW_NAME,
        "createdAt": run.created_at_ms,
        "updatedAt": run.updated_at_ms,
        "traceId": run.trace_id,
        "spanId": None,
        "nextAction": run.next_action,
        "lastStep": run.last_step,
        "retryCount": run.retry_count,
        "topology": config.runtime_mode,
        "runtimeMode": config.runtime_mode,
        "ocMode": config.oc_mode,
        "ocStrictMode": config.oc_strict_mode,
        "sbxMode": config.sbx_mode,
        "sbxProvider": config.sbx_provider,
        "appVersion": config.app_version,
        "claimScope": config.claim_scope,
        "durableStatus": run.status,
        "workflowVersion": run.workflow_version,
    }
    optional = {
        "error": {"message": run.error} if run.error else None,
        "traceBaseUrl": config.trace_base_url,
        "subject": run.subject,
        "queue": run.queue,
        "priority": run.priority,
        "queuePartitionKey": run.queue_partition_key,
        "reason": reason.document() if reason else None,
    }
    return header | without_none(optional)


# Gates ------------------------------------------------------------------------------------------------------

#: A gate is visible from its prompt on. Its origin is that of the last reply in the ledger.
GATES: LiteralString = """
    select r.workflow_id, g.gate_key, g.topic, prompt.value as prompt, result.value as result,
           decision.value as decision, reply.origin, reply.payload_hash
      from app.runs r
      join app.human_gates g on g.run_id = r.id
      join dbos.workflow_events prompt
        on prompt.workflow_uuid = r.workflow_id and prompt.key = 'ui:' || g.gate_key
      left join dbos.workflow_events result
        on result.workflow_uuid = r.workflow_id and result.key = 'ui:' || g.gate_key || ':result'
      left join dbos.workflow_events decision
        on decision.workflow_uuid = r.workflow_id and decision.key = 'decision:' || g.gate_key
      left join lateral (
           select i.origin, i.payload_hash
             from app.human_interactions i
            where i.workflow_id = r.workflow_id and i.gate_key = g.gate_key
            order by i.created_at desc, i.id desc
            limit 1) reply on true
     where (r.workflow_id = %(wid)s or r.id = %(wid)s) and (%(gate)s::text is null or g.gate_key = %(gate)s)
     order by g.created_at, g.gate_key
"""


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate with its events, as JSON text: its prompt, and in time its result and decision."""

    workflow_id: str
    gate_key: str
    topic: str
    prompt: str
    result: str | None
    decision: str | None
    origin: str | None
    payload_hash: str | None

    @property
    def settled(self) -> bool:
        """Nothing more will happen to it. A question has an answer only; other gates end with a decision."""
        return self.result is not None and (self.decision is not None or self.gate_key.startswith("ask-user-"))


async def find_gates(conn: AsyncConnection[Any], wid: str, gate_key: str | None = None) -> list[Gate]:
    async with conn.cursor(row_factory=class_row(Gate)) as cursor:
        await cursor.execute(GATES, {"wid": wid, "gate": gate_key})
        return await cursor.fetchall()


def gate_view(gate: Gate) -> GateView:
    prompt: JsonObject = orjson.loads(gate.prompt)
    result: JsonObject | None = orjson.loads(gate.result) if gate.result else None
    return GateView.model_validate(
        {
            "workflowID": gate.workflow_id,
            "gateKey": gate.gate_key,
            "topic": gate.topic,
            "state": gate_state(result, gate.decision),
            "prompt": prompt,
            "result": result,
            "origin": gate.origin,
            "payloadHash": (result.get("payloadHash") if result else None) or gate.payload_hash,
            "createdAt": prompt["createdAt"],
            "deadlineAt": prompt["deadlineAt"],
        }
    )


def gate_state(result: JsonObject | None, decision: str | None) -> str:
    if result is None:
        return "PENDING"
    if result["state"] == "RECEIVED" and decision is not None:
        return "RESOLVED"
    return result["state"]
