"""What clients see of a run: RunHeader, StepRow, GateView.

Read-only. Each projection stands beside the statement that feeds it. Two sources meet here: `app.*`, which
the run's own commits write, and `dbos.*`, the engine's record. Where both know a status the further one
counts, so a run that the engine ended without the product's help (cancelled, too many attempts) shows its
end; the product's word is never taken back.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import orjson
from psycopg import AsyncConnection
from psycopg.rows import class_row

from api.config import Config
from steps.contracts.base import JsonObject
from steps.contracts.gate import GateView
from steps.contracts.views import RunHeader, StartedRunHeader, StepRow
from steps.ingress import WORKFLOW_NAME, RunRow
from steps.records import PHASES

EPOCH = datetime.fromtimestamp(0, UTC)

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
RANK: Mapping[str, int] = {
    "ENQUEUED": 1,
    "PENDING": 2,
    "WAITING_INPUT": 3,
    "SUCCESS": 4,
    "ERROR": 4,
    "CANCELLED": 4,
}

JSON_KINDS = frozenset(
    {
        "json",
        "raw",
        "timings",
        "artifact_index",
        "question_card",
        "plan_card",
        "json_diagnostic",
        "patch_apply",
        "ops",
    }
)


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
           r.error, r.trace_id, r.next_action, r.last_step, r.retry_count,
           floor(extract(epoch from r.created_at) * 1000)::bigint as created_at_ms,
           floor(extract(epoch from r.updated_at) * 1000)::bigint as updated_at_ms,
           s.status as workflow_status, s.application_version as workflow_version
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


async def find_run(conn: AsyncConnection[Any], wid: str) -> Run | None:
    """The run with this workflow id or run id."""
    async with conn.cursor(row_factory=class_row(Run)) as cursor:
        await cursor.execute(RUN, {"id": wid})
        return await cursor.fetchone()


def run_header(run: Run, config: Config) -> RunHeader:
    return RunHeader.model_validate(_header(run, merged_status(run.status, run.workflow_status), config))


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
    )
    header = _header(run, merged_status(run.status, None), config)
    return StartedRunHeader.model_validate(header | {"isReplay": is_replay})


def epoch_ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _header(run: Run, status: str, config: Config) -> JsonObject:
    header: JsonObject = {
        "workflowID": run.workflow_id,
        "status": status,
        "recipeRef": {"id": run.recipe_id, "v": run.recipe_v} if run.recipe_id and run.recipe_v else None,
        "recipeHash": run.recipe_hash,
        "intentHash": run.intent_hash,
        "workflowName": WORKFLOW_NAME,
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
    if run.error:
        header["error"] = {"message": run.error}
    if config.trace_base_url:
        header["traceBaseUrl"] = config.trace_base_url
    return header


# Steps ------------------------------------------------------------------------------------------------------

#: Times fall back to the run's own: a row may have been written without them.
STEPS: LiteralString = """
    select distinct on (s.step_id)
           s.step_id, s.phase, s.attempt, s.trace_id, s.span_id, null::text as error,
           floor(extract(epoch from coalesce(s.started_at, s.finished_at, r.created_at)) * 1000)::bigint
               as started_at_ms,
           floor(extract(epoch from s.finished_at) * 1000)::bigint as ended_at_ms
      from app.run_steps s
      join app.runs r on r.id = s.run_id
     where s.run_id = %s
     order by s.step_id, s.attempt desc
"""
#: The last record of each step that has no row of its own: it failed, or its workflow wrote none.
UNROWED_STEPS: LiteralString = """
    select distinct on (o.function_name)
           o.function_name as step_id, '' as phase, 1 as attempt, null::text as trace_id,
           null::text as span_id, o.error,
           coalesce(o.started_at_epoch_ms, o.completed_at_epoch_ms, r.created_at) as started_at_ms,
           o.completed_at_epoch_ms as ended_at_ms
      from dbos.operation_outputs o
      join dbos.workflow_status r on r.workflow_uuid = o.workflow_uuid
     where o.workflow_uuid = %s and o.function_name = any(%s)
     order by o.function_name, o.function_id desc
"""
ARTIFACTS: LiteralString = """
    select a.step_id, a.attempt, a.kind, a.uri,
           coalesce(octet_length(a.inline ->> 'text'), octet_length((a.inline -> 'json')::text),
                    octet_length(a.inline::text), 0) as size,
           coalesce(a.inline ? 'json', false) as holds_json,
           floor(extract(epoch from a.created_at) * 1000)::bigint as created_at_ms
      from app.artifacts a
     where a.run_id = %s and a.step_id <> 'OPS'
     order by a.step_id, a.task_key, a.idx
"""


@dataclass(frozen=True, slots=True)
class Step:
    step_id: str
    phase: str
    attempt: int
    trace_id: str | None
    span_id: str | None
    error: str | None
    started_at_ms: int
    ended_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Artifact:
    step_id: str
    attempt: int
    kind: str | None
    uri: str | None
    size: int
    holds_json: bool
    created_at_ms: int


def mime_of(kind: str | None, *, holds_json: bool) -> str:
    if holds_json or kind in JSON_KINDS:
        return "application/json"
    return "image/svg+xml" if kind == "svg" else "text/plain"


def artifact_ref(artifact: Artifact, workflow_id: str) -> JsonObject:
    return {
        "id": artifact.uri,
        "workflowID": workflow_id,
        "stepID": artifact.step_id,
        "kind": artifact.kind,
        "mime": mime_of(artifact.kind, holds_json=artifact.holds_json),
        "size": artifact.size,
    }


def step_row(step: Step, refs: list[JsonObject]) -> StepRow:
    row: JsonObject = {
        "stepID": step.step_id,
        "name": step.phase or PHASES[step.step_id],
        "attempt": step.attempt,
        "startedAt": step.started_at_ms,
        "artifactRefs": refs,
        "traceId": step.trace_id,
        "spanId": step.span_id,
    }
    if step.ended_at_ms is not None:
        row["endedAt"] = step.ended_at_ms
    if step.error is not None:
        row["error"] = orjson.loads(step.error)
    return StepRow.model_validate(row)


async def step_rows(conn: AsyncConnection[Any], run: Run) -> list[StepRow]:
    """The latest attempt at each step, with its artifacts; BUDGET is for a budget that stopped the run."""
    async with conn.cursor(row_factory=class_row(Step)) as cursor:
        steps = {step.step_id: step for step in await (await cursor.execute(STEPS, (run.run_id,))).fetchall()}
        missing = [name for name in PHASES if name not in steps]
        for step in await (await cursor.execute(UNROWED_STEPS, (run.workflow_id, missing))).fetchall():
            steps[step.step_id] = step
    async with conn.cursor(row_factory=class_row(Artifact)) as cursor:
        artifacts = await (await cursor.execute(ARTIFACTS, (run.run_id,))).fetchall()
    if budget := [artifact for artifact in artifacts if artifact.step_id == "BUDGET"]:
        latest, at_ms = max(a.attempt for a in budget), min(a.created_at_ms for a in budget)
        steps["BUDGET"] = Step("BUDGET", "budget", latest, run.trace_id, None, None, at_ms, at_ms)
    refs: defaultdict[tuple[str, int], list[JsonObject]] = defaultdict(list)
    for artifact in artifacts:
        refs[artifact.step_id, artifact.attempt].append(artifact_ref(artifact, run.workflow_id))
    in_order = sorted(steps.values(), key=lambda step: (step.started_at_ms, step.step_id))
    return [step_row(step, refs[step.step_id, step.attempt]) for step in in_order]


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
