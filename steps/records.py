"""The product's rows that a run writes, each with the statement that writes it.

They ride: a step or the workflow hands in a row, and it is committed with the next journal record, or not at all. So the tables
below never know more, or less, than the journal does. Rows of a run are written once; a replay of a step finds its own row
again and may not differ from it.
"""

from dataclasses import dataclass
from typing import LiteralString

from engine import Rider, TerminalError, ride, workflow_info
from steps import tracing
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.ports import ports
from steps.run_record import Run, is_fork_of
from steps.times import iso_of, moment_of

# A fork works on its original's run without being it, so only the workflow that the row names may move it.
RUN_STATUS = Rider("""
    update app.runs r
       set status = n.status, next_action = n.next_action, updated_at = now()
      from json_to_recordset(%s) as n (workflow_id text, status text, next_action text)
     where r.workflow_id = n.workflow_id and (r.status, r.next_action) is distinct from (n.status, n.next_action)
""")

LAST_STEP = Rider("""
    update app.runs r
       set last_step = n.last_step, updated_at = now()
      from json_to_recordset(%s) as n (workflow_id text, last_step text)
     where r.workflow_id = n.workflow_id
""")

RUN_STEP = Rider("""
    insert into app.run_steps (run_id, step_id, attempt, phase, output, trace_id, span_id, started_at, finished_at)
    select n.run_id, n.step_id, n.attempt, n.phase, n.output, n.trace_id, n.span_id, n.started_at, clock_timestamp()
      from json_to_recordset(%s) as n (run_id text, step_id text, attempt int, phase text, output jsonb, trace_id text,
                                       span_id text, started_at timestamptz)
    on conflict do nothing
""")

HUMAN_GATE = Rider("""
    insert into app.human_gates (run_id, gate_key, topic, created_at, deadline_at)
    select n.run_id, n.gate_key, n.topic, to_timestamp(n.created_at_ms / 1000.0), to_timestamp(n.deadline_at_ms / 1000.0)
      from json_to_recordset(%s) as n (workflow_id text, run_id text, gate_key text, topic text, created_at_ms bigint,
                                       deadline_at_ms bigint)
      join app.runs r on r.id = n.run_id and r.workflow_id = n.workflow_id
    on conflict do nothing
""")

GATE_RESOLVED = Rider("""
    update app.human_gates g
       set resolved_at = to_timestamp(n.at_ms / 1000.0)
      from json_to_recordset(%s) as n (workflow_id text, run_id text, gate_key text, at_ms bigint)
      join app.runs r on r.id = n.run_id and r.workflow_id = n.workflow_id
     where g.run_id = n.run_id and g.gate_key = n.gate_key and g.resolved_at is null
""")

PLAN_APPROVAL = Rider("""
    insert into app.plan_approvals (run_id, approved_by, notes)
    select n.run_id, n.approved_by, n.notes
      from json_to_recordset(%s) as n (workflow_id text, run_id text, approved_by text, notes text)
      join app.runs r on r.id = n.run_id and r.workflow_id = n.workflow_id
    on conflict do nothing
""")

HUMAN_INTERACTION = Rider("""
    insert into app.human_interactions (workflow_id, run_id, gate_key, topic, dedupe_key, payload_hash, payload, origin)
    select n.workflow_id, n.run_id, n.gate_key, n.topic, n.dedupe_key, n.payload_hash, n.payload, n.origin
      from json_to_recordset(%s) as n (workflow_id text, run_id text, gate_key text, topic text, dedupe_key text,
                                       payload_hash text, payload jsonb, origin text)
      join app.runs r on r.id = n.run_id and r.workflow_id = n.workflow_id
    on conflict do nothing
""")

SANDBOX_RUN = Rider("""
    insert into app.sbx_runs (run_id, step_id, task_key, attempt, provider, request, response, err_code, metrics, created_at,
                              updated_at)
    select n.run_id, n.step_id, n.task_key, n.attempt, n.provider, n.request, n.response, n.err_code, n.metrics,
           to_timestamp(n.began_at_ms / 1000.0), to_timestamp(n.ended_at_ms / 1000.0)
      from json_to_recordset(%s) as n (run_id text, step_id text, task_key text, attempt int, provider text, request jsonb,
                                       response jsonb, err_code text, metrics jsonb, began_at_ms bigint, ended_at_ms bigint)
    on conflict do nothing
""")

RECEIPT = Rider("""
    insert into app.mock_receipts (receipt_key, run_id, step_id, payload_hash, first_attempt, last_attempt, request_payload,
                                   response_payload)
    select n.receipt_key, n.run_id, n.step_id, n.payload_hash, n.attempt, n.attempt, n.request_payload, n.response_payload
      from json_to_recordset(%s) as n (receipt_key text, run_id text, step_id text, payload_hash text, attempt int,
                                       request_payload jsonb, response_payload jsonb)
    on conflict (receipt_key) do update
       set seen_count = mock_receipts.seen_count + 1, last_attempt = excluded.last_attempt, updated_at = now()
""")

PHASES = {
    "CompileST": "compilation",
    "ApplyPatchST": "patching",
    "DecideST": "planning",
    "ExecuteST": "execution",
}
#: Those of an improvement, which is a run of its own kind.
IMPROVEMENT_PHASES = {
    "PostmortemST": "postmortem",
    "PatchGenST": "mending",
    "ApplyPatchST": "patching",
    "FixturesST": "proving",
    "PublishST": "publishing",
}

BEGIN_STEP: LiteralString = """
    select r.retry_count + 1 as number, engine.now_ms() as started_at_ms, s.output as recorded,
           exists (select from app.patch_history p where p.run_id = r.id and p.rolled_back_at is not null) as rolled_back
      from app.runs r
      left join app.run_steps s on s.run_id = r.id and s.step_id = %s and s.attempt = r.retry_count + 1
     where r.id = %s
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The run's attempt (1, and one more for each retry that a person asked for) at a step.

    recorded: what an earlier execution of the same attempt wrote. rolled_back: the run's patches are not in place.
    """

    number: int
    started_at_ms: int
    recorded: JsonObject | None
    rolled_back: bool


async def begin_step(run: Run, step_id: str) -> Attempt:
    """Which attempt at the step this is; the first thing a step does."""
    found = await ports().read(Attempt, BEGIN_STEP, step_id, run.run_id)
    if found is None:
        raise TerminalError(f"run {run.run_id} has no row any more", name="RunNotFound")
    return found


def finish_step(run: Run, step_id: str, attempt: Attempt, output: JsonObject) -> JsonObject:
    """Ride the step's row, unless this is a fork; returns it, with the attempt in it. Raises a determinism violation for one that
    differs from its record.
    """
    output = output | {"attempt": attempt.number}
    if is_fork_of(run.run_id):
        return output
    if attempt.recorded is not None and canonical_json(attempt.recorded) != canonical_json(output):
        raise TerminalError(
            f"Determinism violation in {step_id} of {run.run_id}: attempt {attempt.number} is recorded with another output",
            name="DeterminismViolation",
        )
    ride(
        RUN_STEP,
        {
            "run_id": run.run_id,
            "step_id": step_id,
            "attempt": attempt.number,
            "phase": (IMPROVEMENT_PHASES if run.purpose == "improvement" else PHASES)[step_id],
            "output": output,
            "trace_id": tracing.trace_id(run.workflow_id, run.trace_id),
            "span_id": tracing.span_of_this_step(),
            "started_at": iso_of(moment_of(attempt.started_at_ms)),
        },
    )
    ride(LAST_STEP, {"workflow_id": workflow_info().id, "last_step": step_id})
    return output


def ride_status(status: str, next_action: str | None = None) -> None:
    """Ride the status of this workflow's run. Follow it with a journaled call, so that it rides once."""
    ride(RUN_STATUS, {"workflow_id": workflow_info().id, "status": status, "next_action": next_action})
