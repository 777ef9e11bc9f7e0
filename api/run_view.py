"""RunView: a run whole, as older clients read it, with what each step put out and all that it left.

Of a step that was tried again only the latest attempt is shown.
"""

from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from api.views import Run
from steps.contracts.base import JsonObject
from steps.contracts.views import RunView
from steps.records import PHASES
from steps.times import iso_of

STORY = list(PHASES)

STEPS: LiteralString = """
    select latest.* from (
        select distinct on (s.step_id)
               s.step_id as "stepId", s.phase, s.output, s.started_at as "startedAt", s.finished_at as "finishedAt",
               s.trace_id as "traceId", s.span_id as "spanId"
          from app.run_steps s
         where s.run_id = %s
         order by s.step_id, s.attempt desc) latest
     order by array_position(%s::text[], latest."stepId"), latest."stepId"
"""
ARTIFACTS: LiteralString = """
    select a.kind, a.uri, a.inline, a.sha256
      from (select every.*, max(every.attempt) over (partition by every.step_id) as latest
              from app.artifacts every
             where every.run_id = %s) a
     where a.attempt = a.latest
     order by array_position(%s::text[], a.step_id), a.step_id, a.task_key, a.idx
"""


async def run_view(conn: AsyncConnection[Any], run: Run) -> RunView:
    """The run with its steps, in the order of the story, and their artifacts."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        steps = await (await cursor.execute(STEPS, (run.run_id, STORY))).fetchall()
        artifacts = await (await cursor.execute(ARTIFACTS, (run.run_id, STORY))).fetchall()
    view: JsonObject = {
        "runId": run.run_id,
        "workflowId": run.workflow_id,
        "recipeRef": {"id": run.recipe_id, "v": run.recipe_v} if run.recipe_id and run.recipe_v else None,
        "recipeHash": run.recipe_hash,
        "intentHash": run.intent_hash,
        "status": run.status,
        "steps": [_step(row) for row in steps],
        "artifacts": [_given(row, "uri", "inline") for row in artifacts],
        "traceId": run.trace_id,
        "lastStep": run.last_step,
        "error": run.error,
        "retryCount": run.retry_count,
        "nextAction": run.next_action,
    }
    return RunView.model_validate(_given(view, "lastStep", "error", "nextAction"))


def _step(row: JsonObject) -> JsonObject:
    times = {name: iso_of(row[name]) for name in ("startedAt", "finishedAt") if row[name] is not None}
    return _given(row | times, "output", "startedAt", "finishedAt")


def _given(document: JsonObject, *optional: str) -> JsonObject:
    """The document without those optional parts that are null."""
    return {name: value for name, value in document.items() if value is not None or name not in optional}
